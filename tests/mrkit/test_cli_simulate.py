"""`mrkit simulate` from files to files, on a small synthetic brain with given tissues."""

import hashlib
import json

import nibabel as nib
import numpy as np
import pytest

from mrcore.acquisition import from_json
from mrcore.io import load_volume
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
