"""What `mrkit info` says about good, doubtful and unusable files."""

import json

import nibabel as nib
import numpy as np
import pytest

from mrcore.errors import BadInputError
from mrcore.io.bids.checks import sidecar_problems
from mrkit.cli import main
from mrkit.info.inspection import inspect_file, obliquity_deg

ADVICE = "give the scan itself (maps are given with --tissues or --mask)"


def write(path, data, affine, sidecar=None):
    nib.Nifti1Image(data, affine).to_filename(path)
    if sidecar is not None:
        (path.parent / "a.json").write_text(json.dumps(sidecar))
    return path


def noisy_head(sd=4.0, shape=(48, 56, 20)):
    """A ball of 100 in Rician noise."""
    rng = np.random.default_rng(0)
    place = np.stack(np.meshgrid(*[np.linspace(-1.3, 1.3, n) for n in shape], indexing="ij"))
    signal = 100.0 * (np.linalg.norm(place, axis=0) < 1)
    return np.hypot(signal + rng.normal(0, sd, shape), rng.normal(0, sd, shape)).astype(np.float32)


def texts(report, *, fatal):
    return [problem.text for problem in report.problems if problem.fatal == fatal]


def test_noise_and_kind_of_a_low_field_scan(tmp_path):
    report = inspect_file(write(tmp_path / "a.nii.gz", noisy_head(), np.diag([1.6, 1.6, 5.0, 1])))
    assert report.usable
    assert report.intensity.noise_sd == pytest.approx(4.0, rel=0.03)
    assert report.intensity.snr == pytest.approx(25.0, rel=0.05)
    assert report.kind.startswith("like an ultra-low-field scan")
    assert report.skull_stripped is False
    assert report.place.fov_mm == pytest.approx((76.8, 89.6, 100.0))


def test_every_reason_is_listed_errors_first(tmp_path):
    data = noisy_head()
    data[24, 28, 10] = np.nan
    affine = np.diag([1.6e-3, 1.6e-3, 5e-3, 1])
    report = inspect_file(write(tmp_path / "a.nii.gz", data, affine, {"MagneticFieldStrength": 64}))
    assert not report.usable
    assert ["NaN" in text for text in texts(report, fatal=True)].count(True) == 1
    assert any("not those of an MRI scan" in text for text in texts(report, fatal=True))
    assert texts(report, fatal=False) == [
        "sidecar a.json: MagneticFieldStrength 64 cannot be in tesla; is it in mT or gauss?"
    ]
    assert [problem.fatal for problem in report.problems] == [True, True, False]


def test_damaged_file_makes_a_report(tmp_path):
    path = write(tmp_path / "a.nii.gz", noisy_head(), np.eye(4))
    path.write_bytes(path.read_bytes()[:-50])
    report = inspect_file(path)
    assert not report.usable
    assert "gzip stream is truncated" in texts(report, fatal=True)[0]


def test_missing_file_raises(tmp_path):
    with pytest.raises(BadInputError, match="no such file"):
        inspect_file(tmp_path / "a.nii")


def test_truncated_data_still_tell_where_the_voxels_are(tmp_path):
    path = write(tmp_path / "a.nii", noisy_head(), np.diag([1.6, 1.6, 5.0, 1]))
    path.write_bytes(path.read_bytes()[:-8])
    report = inspect_file(path)
    assert report.place.voxel_mm == pytest.approx((1.6, 1.6, 5.0))
    assert "truncated" in texts(report, fatal=True)[0]


def test_field_strength_of_the_sidecar_decides_the_kind(tmp_path):
    path = write(tmp_path / "a.nii.gz", noisy_head(), np.eye(4), {"MagneticFieldStrength": 0.064})
    assert inspect_file(path).kind.startswith("ultra-low-field scan (0.064 T")


def test_labels_and_negative_values_are_noticed(tmp_path):
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[8:30, 8:30, 8:30] = 2
    report = inspect_file(write(tmp_path / "a.nii.gz", labels, 3 * np.diag([1, 1, 1, 1 / 3])))
    assert report.kind == "labels, mask or probabilities"
    rng = np.random.default_rng(0)
    report = inspect_file(write(tmp_path / "a.nii.gz", rng.normal(size=(40, 40, 40)).astype(np.float32), np.eye(4)))
    assert any("below 0" in text for text in texts(report, fatal=True))


def test_clipped_intensities_are_noticed(tmp_path):
    data = np.minimum(noisy_head(), 106)
    report = inspect_file(write(tmp_path / "a.nii.gz", data, np.diag([3.0, 3, 5, 1])))
    assert any("intensities were cut off" in text for text in texts(report, fatal=False))


def test_obliquity_is_the_worst_axis():
    affine = np.eye(4)
    affine[:3, :3] = nib.eulerangles.euler2mat(0, 0, np.radians(12.5)) * (1, 2, 3)
    assert obliquity_deg(affine) == pytest.approx(12.5)


@pytest.mark.parametrize(("values", "part"), [
    ({"Manufacturer": "Philips", "MagneticFieldStrength": 0.064}, "not go with 0.064 T; dcm2niix labels Hyperfine"),
    ({"Manufacturer": "Siemens", "ManufacturersModelName": "Swoop"}, "does not go with the model Swoop"),
    ({"Manufacturer": "Hyperfine", "MagneticFieldStrength": 3}, "does not go with 3 T"),
    ({"EchoTime": 4.2}, "is it in ms"),
    ({"RepetitionTime": 1500}, "is it in ms"),
    ({"InversionTime": 400}, "is it in ms"),
    ({"MagneticFieldStrength": "3T"}, "must be a positive number in tesla"),
])  # fmt: skip
def test_known_mistakes_of_sidecars(values, part):
    found = sidecar_problems(values, "a.json")
    assert len(found) == 1
    assert part in found[0].text
    assert not found[0].fatal


def test_sound_sidecars_pass():
    for values in (
        {"Manufacturer": "Hyperfine", "MagneticFieldStrength": 0.064, "EchoTime": 0.006, "RepetitionTime": 1.5},
        {"Manufacturer": "Siemens", "MagneticFieldStrength": 3, "InversionTime": 0.9},
        {},
    ):
        assert sidecar_problems(values, "a.json") == []


@pytest.mark.parametrize(("name", "kind", "stripped"), [
    ("t1/stroke_3T_T1_brain.nii.gz", "like a high-field 3-D scan", True),
    ("t1/openms_long_p01_T1W_raw.nii.gz", "like a high-field 2-D scan", False),
    ("ulf/lowgan_MS017_64mT_T1w.nii.gz", "like an ultra-low-field scan", False),
    ("ulf/lowgan_MS017_64mT_T2w.nii.gz", "like an ultra-low-field scan", False),
])  # fmt: skip
def test_real_scans_are_recognised(shared_data, name, kind, stripped):
    report = inspect_file(shared_data / name)
    assert report.problems == ()
    assert report.kind.startswith(kind)
    assert report.skull_stripped is stripped
    assert report.intensity.noise_sd > 0


def test_a_slice_is_described_and_a_mask_or_map_is_told_what_takes_it(tmp_path):
    affine = np.diag([1.6, 1.6, 5.0, 1])
    scan = noisy_head()[:, :, 10:11]
    alone = inspect_file(write(tmp_path / "a.nii.gz", scan, affine))
    assert not alone.usable
    assert "this is 2-D (48 x 56 x 1)" in texts(alone, fatal=True)[0]
    assert alone.place.voxel_mm == pytest.approx((1.6, 1.6, 5.0))
    assert alone.intensity.high == pytest.approx(float(scan.max()))
    mask = inspect_file(write(tmp_path / "a.nii.gz", (scan > 50).astype(np.uint8), affine))
    assert not mask.usable
    assert mask.kind == "labels, mask or probabilities"
    assert texts(mask, fatal=True) == ["this is a mask (0 and 1), not a scan; " + ADVICE]
    quantity = inspect_file(write(tmp_path / "a.nii.gz", scan / 50, affine, {"Units": "s"}))
    assert not quantity.usable
    assert quantity.kind == "quantitative map in s"
    assert (quantity.skull_stripped, quantity.intensity.noise_sd) == (None, None)
    for report in (mask, quantity):
        assert ["one slice" in text for text in texts(report, fatal=False)].count(True) == 1


def test_gaps_and_doubts_about_the_resolution_are_said(tmp_path, capsys):
    path = write(
        tmp_path / "a.nii.gz",
        noisy_head(),
        np.diag([1.6, 1.6, 5.0, 1]),
        {"SliceThickness": 4, "SpacingBetweenSlices": 5, "MRAcquisitionType": "2D", "SeriesDescription": "T2 (AXI)"},
    )
    report = inspect_file(path)
    assert report.resolution[0].startswith("point spread: slices of 4 mm every 5 mm, gaps of 1 mm")
    assert main(["info", str(path)]) == 0
    assert "T2 (AXI)" in capsys.readouterr().out
    (tmp_path / "a.json").write_text(json.dumps({"SliceThickness": 4, "SpacingBetweenSlices": 3}))
    assert "resampled since" in texts(inspect_file(path), fatal=False)[0]
