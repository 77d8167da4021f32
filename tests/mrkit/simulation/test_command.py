"""`mrkit simulate` from files to files, on a small synthetic brain with given tissues."""

import hashlib
import json

import nibabel as nib
import numpy as np
import pytest

from mrcore.data.acquisition import from_json
from mrcore.io.volumes import load_volume
from mrkit.cli import main

SHAPE = (48, 56, 48)
AFFINE = np.array([[-3.2, 0, 0, 80.5], [0, 0, 3.0, -70.25], [0, -3.1, 0, 90], [0, 0, 0, 1]])


def write_subject(folder):
    """A brain of three shells at about 3 mm, flipped and permuted (LIA), and its label map."""
    place = np.stack(np.meshgrid(*[np.linspace(-1.3, 1.3, n) for n in SHAPE], indexing="ij"))
    radius = np.linalg.norm(place, axis=0)
    labels = np.select([radius < 0.55, radius < 0.8, radius < 1.0], [3, 2, 1], 0).astype(np.uint8)
    data = np.array([0, 40, 80, 110], np.float32)[labels]
    data += np.random.default_rng(0).normal(0, 1, SHAPE).astype(np.float32) * (labels > 0)
    for name, values in (("hf", data), ("labels", labels)):
        nib.Nifti1Image(values, AFFINE).to_filename(folder / f"{name}.nii.gz")
    return folder / "hf.nii.gz", folder / "labels.nii.gz"


def simulate(folder, out, *options, seed=1):
    image, labels = write_subject(folder)
    arguments = ["simulate", image, folder / out, "--tissues", labels, "--seed", seed, *options]
    return main([str(argument) for argument in arguments])


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulate")
    assert simulate(folder, "out") == 0
    return folder


def test_all_results_are_there_with_sidecars(done):
    names = {path.name for path in (done / "out").iterdir()}
    stems = ["hf_ulf", "hf_truth", "hf_dseg", *(f"hf_label-{name}_probseg" for name in ("CSF", "GM", "WM"))]
    assert names == {f"{stem}{suffix}" for stem in stems for suffix in (".nii.gz", ".json")} | {"hf_ulf_report.html"}


def test_truth_keeps_the_grid_of_the_input_and_the_scan_its_axes(done):
    source = load_volume(done / "hf.nii.gz")
    assert load_volume(done / "out" / "hf_truth.nii.gz").grid.matches(source.grid)
    scan = load_volume(done / "out" / "hf_ulf.nii.gz")
    assert scan.grid.spacing_mm == pytest.approx((1.6, 1.6, 5.0), rel=1e-4)
    assert np.abs(scan.grid.origin_mm - source.grid.origin_mm).max() < 1e-3
    # The intensity-weighted centre does not move in the world.
    centres = []
    for volume in (load_volume(done / "out" / "hf_truth.nii.gz"), scan):
        weight = volume.data.numpy() * (volume.data.numpy() > 0.3 * volume.data.numpy().max())
        voxels = np.stack(np.meshgrid(*[np.arange(n) for n in weight.shape], indexing="ij"), -1)
        centre = (voxels * weight[..., None]).sum((0, 1, 2)) / weight.sum()
        centres.append(nib.affines.apply_affine(volume.grid.affine, centre))
    assert np.abs(centres[0] - centres[1]).max() < 0.3


def test_sidecar_of_the_scan_tells_how_it_was_made(done):
    sidecar = json.loads((done / "out" / "hf_ulf.json").read_text())
    assert sidecar["MagneticFieldStrength"] == 0.064
    assert sidecar["Seed"] == 1
    assert sidecar["Sources"] == ["hf.nii.gz", "labels.nii.gz"]
    assert sidecar["SourcesSHA256"]["hf.nii.gz"] == hashlib.sha256((done / "hf.nii.gz").read_bytes()).hexdigest()
    assert sidecar["Parameters"]["Preset"] == "hyperfine-t1w"
    assert sidecar["SkullStripped"] is True
    assert set(sidecar["Calibration"]["Gains"]) == {"CSF", "GM", "WM"}
    acquisition = from_json(sidecar)
    assert acquisition.voxel_mm == (1.6, 1.6, 5.0)
    assert acquisition.noise_sd > 0
    assert str(done) not in (done / "out" / "hf_ulf.json").read_text()


def test_same_seed_same_bytes_other_seed_other_noise(done, tmp_path):
    assert simulate(tmp_path, "again") == 0
    assert hashes(tmp_path / "again") == hashes(done / "out")
    assert simulate(tmp_path, "other", "--no-report", seed=2) == 0
    other, first = hashes(tmp_path / "other"), hashes(done / "out")
    assert "hf_ulf_report.html" not in other
    assert other["hf_truth.nii.gz"] == first["hf_truth.nii.gz"]
    assert other["hf_ulf.nii.gz"] != first["hf_ulf.nii.gz"]


def test_wm_snr_sets_the_noise(done, tmp_path):
    assert simulate(tmp_path, "out", "--wm-snr", "12.5", "--no-report") == 0
    noisy = json.loads((tmp_path / "out" / "hf_ulf.json").read_text())
    assert noisy["Calibration"]["TargetSnr"]["WM"] == pytest.approx(12.5)
    first = json.loads((done / "out" / "hf_ulf.json").read_text())
    assert noisy["Acquisition"]["noise_sd"] > 3 * first["Acquisition"]["noise_sd"]


def test_second_run_needs_force(done, capfd):
    before = hashes(done / "out")
    assert simulate(done, "out") == 2
    assert "exists already" in capfd.readouterr().err
    assert simulate(done, "out", "--force") == 0
    assert hashes(done / "out") == before


def sidecar_of(folder, name="hf_ulf"):
    return json.loads((folder / f"{name}.json").read_text())


def test_geometry_noise_and_snr_are_those_asked_for(tmp_path):
    options = ["--voxel", 3.1, 2.9, 6.3, "--slice-axis", "R", "--tilt", 0, 4.5, -3, "--noise-fwhm", 5, 5, 0]
    options += ["--channels", 2, "--target-snr", "WM=33", "CSF=11", "--no-report"]
    assert simulate(tmp_path, "out", *options) == 0
    sidecar = sidecar_of(tmp_path / "out")
    acquisition = from_json(sidecar)
    assert acquisition.voxel_mm == (3.1, 2.9, 6.3)
    assert (acquisition.slice_axis, acquisition.tilt_deg) == ("R", (0.0, 4.5, -3.0))
    assert (acquisition.noise_fwhm_mm, acquisition.n_channels) == ((5.0, 5.0, 0.0), 2)
    assert sidecar["Calibration"]["TargetSnr"]["WM"] == 33
    assert sidecar["Calibration"]["TargetSnr"]["CSF"] == 11
    assert sidecar["Parameters"]["Changes"]["voxel_mm"] == [3.1, 2.9, 6.3]
    scan = load_volume(tmp_path / "out" / "hf_ulf.nii.gz")
    assert scan.grid.spacing_mm == pytest.approx((3.1, 2.9, 6.3), rel=1e-4)
    assert abs(scan.grid.affine[0, 2] / 6.3) == pytest.approx(np.cos(np.radians(4.5)), abs=0.01)


def test_k_space_gives_the_scan_back(tmp_path):
    assert simulate(tmp_path, "out", "--k-space", "--channels", 2, "--no-report") == 0
    samples = np.load(tmp_path / "out" / "hf_ulf_kspace.npz")["k_space"]
    axes = (1, 2, 3)
    shifted = np.fft.ifftshift(samples, axes)
    images = np.fft.fftshift(np.fft.ifftn(shifted, axes=axes, norm="ortho"), axes)
    scan = load_volume(tmp_path / "out" / "hf_ulf.nii.gz").data.numpy()
    assert samples.shape == (2, *scan.shape)
    assert np.abs(np.sqrt((np.abs(images) ** 2).sum(0)) - scan).max() < 1e-4 * scan.max()


def test_artefacts_of_a_sidecar_are_applied_again(tmp_path):
    assert simulate(tmp_path, "drawn", "--artefacts", "strong", "--no-report") == 0
    drawn = sidecar_of(tmp_path / "drawn")
    assert len(drawn["Artefacts"]) > 1
    assert simulate(tmp_path, "again", "--artefacts", tmp_path / "drawn" / "hf_ulf.json", "--no-report") == 0
    assert sidecar_of(tmp_path / "again")["Artefacts"] == drawn["Artefacts"]
    scans = [load_volume(tmp_path / name / "hf_ulf.nii.gz").data for name in ("drawn", "again")]
    assert scans[0].equal(scans[1])
    assert simulate(tmp_path, "other", "--artefacts", "strong", "--no-report", seed=2) == 0
    assert sidecar_of(tmp_path / "other")["Artefacts"] != drawn["Artefacts"]


def test_published_gauge_leaves_the_level_open(tmp_path):
    assert simulate(tmp_path, "out", "--gauge", "none", "--no-report") == 0
    found = sidecar_of(tmp_path / "out")["Calibration"]
    assert "published" in found["Gauge"]
    assert min(found["Gains"].values()) == pytest.approx(0, abs=1e-3), "the smallest gains that give the contrasts"
    assert any("out of reach" in warning or "matched" in warning for warning in found["Warnings"])


def test_prior_gauge_meets_contrasts(tmp_path):
    assert simulate(tmp_path, "out", "--gauge", "prior", "--no-report") == 0
    found = sidecar_of(tmp_path / "out")["Calibration"]
    target, got = found["TargetSnr"], found["PredictedSnr"]
    assert got["WM"] - got["GM"] == pytest.approx(target["WM"] - target["GM"], rel=0.02)


def test_protocol_needs_what_a_scanner_delivers(tmp_path, capfd):
    protocol = tmp_path / "t2.json"
    protocol.write_text(
        json.dumps({"MagneticFieldStrength": 0.1, "RepetitionTime": 2, "EchoTime": 0.1, "SeriesDescription": "T2"})
    )
    assert simulate(tmp_path, "out", "--protocol", protocol) == 2
    assert "--voxel and --wm-snr" in capfd.readouterr().err
    assert simulate(tmp_path, "out", "--protocol", protocol, "--voxel", 3, 3, 6, "--wm-snr", 20) == 0
    sidecar = sidecar_of(tmp_path / "out")
    assert sidecar["MagneticFieldStrength"] == 0.1
    assert sidecar["EchoTime"] == 0.1
    assert sidecar["Parameters"]["Protocol"] == "t2.json"
    assert any("approximate" in note for note in sidecar["Notes"]), "T2w from T1w"


def test_options_that_do_not_fit_are_refused(tmp_path, capfd):
    for options, text in (
        (["--field", "0.1"], "--protocol"),
        (["--target-snr", "FAT=3"], "TISSUE=NUMBER"),
        (["--target-snr", "WM=-3"], "positive"),
        (["--artefacts", "none.json"], "no such file"),
        (["--noise-fwhm", "1", "1", "-1"], "at least 0"),
        (["--voxel", "1", "1"], "expected 3"),
        (["--like", tmp_path / "nowhere"], "no such file or folder"),
    ):
        try:
            code = simulate(tmp_path, "out", *options)
        except SystemExit as stopped:
            code = stopped.code
        assert code == 2
        assert text in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
