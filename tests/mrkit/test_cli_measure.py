import json

import nibabel as nib
import numpy as np
import pytest

from mrkit.cli import main

AFFINE = np.diag([2.0, 2.0, 4.0, 1.0])
SD = 4.0


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A ball of three tissues with Rician noise, and its label map (FAST codes)."""
    folder = tmp_path_factory.mktemp("measure")
    shape = (48, 48, 28)
    place = np.stack(np.meshgrid(*[s * (np.arange(n) - (n - 1) / 2) for n, s in zip(shape, (2, 2, 4), strict=True)]))
    radius = np.linalg.norm(place, axis=0)
    labels = np.select([radius < 20, radius < 30, radius < 38], [3, 2, 1], 0)
    clean = np.array([0.0, 40.0, 80.0, 120.0])[labels]
    noise = np.random.default_rng(0).normal(0, SD, (2, *shape))
    scan, tissues = folder / "ball_T1w.nii.gz", folder / "ball_dseg.nii.gz"
    nib.Nifti1Image(np.hypot(clean + noise[0], noise[1]).astype(np.float32), AFFINE).to_filename(scan)
    nib.Nifti1Image(labels.astype(np.int16), AFFINE).to_filename(tissues)
    return scan, tissues


def test_json_holds_means_intervals_noise_and_sharpness(files, capfd):
    scan, tissues = files
    assert main(["measure", str(scan), "--tissues", str(tissues), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["noise"]["method"] == "background"
    assert found["noise"]["sd"] == pytest.approx(SD, rel=0.03)
    white = found["tissues"]["WM"]
    assert white["snr"] == pytest.approx(120 / SD, rel=0.04)
    assert white["snr_interval"][0] < 120 / SD < white["snr_interval"][1]
    assert white["mean_interval"][0] < 120 < white["mean_interval"][1]
    contrast = found["cnr"]["WM-GM"]
    assert contrast["cnr_interval"][0] < 40 / SD < contrast["cnr_interval"][1]
    assert max(found["noise_spectrum"]["fwhm_mm"]) < 1.5
    assert found["edge_spread"]["voxel_mm"] == [2.0, 2.0, 4.0]
    assert found["weighting"] == "T1w"


def test_the_table_names_tissues_contrasts_noise_and_axes(files, capfd):
    scan, tissues = files
    assert main(["measure", str(scan), "--tissues", str(tissues)]) == 0
    lines = capfd.readouterr().out.splitlines()
    firsts = [line.split()[0] for line in lines if line]
    for word in ("CSF", "GM", "WM", "WM-GM", "noise", "R", "A", "S"):
        assert word in firsts
    assert any("(background)" in line for line in lines)


def test_a_file_that_is_missing_is_one_line(tmp_path, capfd):
    assert main(["measure", str(tmp_path / "none.nii.gz")]) == 2
    assert len(capfd.readouterr().err.splitlines()) == 1
