"""`mrkit superresolve` from files to files, on a small synthetic scan with given tissues."""

import hashlib
import json

import nibabel as nib
import numpy as np
import pytest

from mrcore.io.volumes import load_volume
from mrkit.cli import main
from mrkit.superresolution import fitting

SHAPE = (26, 30, 14)
AFFINE = np.array([[-6.0, 0, 0, 78], [0, 6.0, 0, -90], [0, 0, 12.0, -70], [0, 0, 0, 1]])


def write_scan(folder):
    """Three shells of tissue with Rician noise of sd 3, LAS, and the label map of the shells."""
    place = np.stack(np.meshgrid(*[np.linspace(-1.3, 1.3, n) for n in SHAPE], indexing="ij"))
    radius = np.linalg.norm(place, axis=0)
    labels = np.select([radius < 0.55, radius < 0.8, radius < 1.0], [3, 2, 1], 0).astype(np.uint8)
    signal = np.array([0.0, 40, 80, 110])[labels]
    draw = np.random.default_rng(0).normal(0, 3, (2, *SHAPE))
    scan = np.hypot(signal + draw[0], draw[1]).astype(np.float32)
    for name, values in (("sub-01_T1w", scan), ("labels", labels)):
        nib.Nifti1Image(values, AFFINE).to_filename(folder / f"{name}.nii.gz")
    (folder / "sub-01_T1w.json").write_text(json.dumps({"MagneticFieldStrength": 0.064, "PatientName": "private"}))


def superresolve(folder, out, *options):
    write_scan(folder)
    arguments = ["superresolve", folder / "sub-01_T1w.nii.gz", folder / out, "--tissues", folder / "labels.nii.gz"]
    return main([str(argument) for argument in (*arguments, "--voxel", "5.5", "--seed", "3", *options)])


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def trusted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trusted")
    assert superresolve(folder, "out", "--uncertainty", "2", "--save-field", "--regularisation", "0.7") == 0
    return folder


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("superresolve")
    assert superresolve(folder, "out") == 0
    return folder


def test_all_results_are_there_with_sidecars(done):
    names = {path.name for path in (done / "out").iterdir()}
    stem = "sub-01_T1w"
    images = ["sr", "sr_dseg", *(f"sr_label-{name}_probseg" for name in ("CSF", "GM", "WM")), "cubic", "residualz"]
    expected = {f"{stem}_{name}{suffix}" for name in images for suffix in (".nii.gz", ".json")}
    assert names == expected | {f"{stem}_sr_report.html"}


def test_grids_are_those_of_the_output_and_of_the_scan(done):
    out = done / "out"
    scan, image = load_volume(done / "sub-01_T1w.nii.gz"), load_volume(out / "sub-01_T1w_sr.nii.gz")
    assert image.grid.spacing_mm == pytest.approx((5.5, 5.5, 5.5), rel=1e-4)
    assert image.grid.orientation == scan.grid.orientation == "LAS"
    assert all(abs(a - b) < 12 for a, b in zip(image.grid.fov_mm, scan.grid.fov_mm, strict=True))
    for name in ("cubic", "sr_dseg", "sr_label-GM_probseg"):
        assert load_volume(out / f"sub-01_T1w_{name}.nii.gz").grid.matches(image.grid)
    assert load_volume(out / "sub-01_T1w_residualz.nii.gz").grid.matches(scan.grid)


def test_result_is_the_object_and_the_residual_is_noise(done):
    out = done / "out"
    image, cubic = load_volume(out / "sub-01_T1w_sr.nii.gz"), load_volume(out / "sub-01_T1w_cubic.nii.gz")
    centre = tuple(n // 2 for n in image.grid.shape)
    assert float(image.data[centre]) == pytest.approx(110, rel=0.1)
    assert float(cubic.data[centre]) == pytest.approx(110, rel=0.15)
    residual = load_volume(out / "sub-01_T1w_residualz.nii.gz").data
    # The borders of this object are sharper than the model's, so the middle of the distribution counts.
    spread = 1.4826 * float((residual - residual.median()).abs().median())
    assert 0.75 < spread < 1.35
    labels = load_volume(out / "sub-01_T1w_sr_dseg.nii.gz").data
    assert {float(v) for v in labels.unique()} == {0.0, 1.0, 2.0, 3.0}
    assert float(labels[centre]) == 3.0


def test_sidecar_keeps_the_scanner_and_leaves_the_patient_out(done):
    sidecar = json.loads((done / "out" / "sub-01_T1w_sr.json").read_text())
    assert sidecar["MagneticFieldStrength"] == 0.064
    assert sidecar["Seed"] == 3
    assert sidecar["Parameters"]["VoxelMm"] == 5.5
    assert sidecar["Parameters"]["Weighting"] == "T1w"
    assert sidecar["Parameters"]["Device"] == "cpu"
    assert sidecar["Fit"]["NoiseSd"] == pytest.approx(3.0, rel=0.15)
    assert set(sidecar["SourcesSHA256"]) == {"sub-01_T1w.nii.gz", "labels.nii.gz"}
    assert "private" not in "".join(path.read_text() for path in (done / "out").glob("*.json"))


def test_same_seed_same_bytes(done, tmp_path):
    assert superresolve(tmp_path, "out", "--device", "cpu") == 0
    assert hashes(tmp_path / "out") == hashes(done / "out")


def test_voxel_larger_than_the_scan_is_refused_and_nothing_is_written(tmp_path, capfd):
    assert superresolve(tmp_path, "out", "--voxel", "13.5") == 2
    assert "got 13.5 mm" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_uncertainty_writes_maps_a_field_and_leaves_no_members(trusted):
    out = trusted / "out"
    names = {path.name for path in out.iterdir()}
    stem = "sub-01_T1w_sr"
    assert {f"{stem}_sd.nii.gz", f"{stem}_sd.json", f"{stem}_nullspace.nii.gz", f"{stem}_field.safetensors"} <= names
    assert not any(name.startswith(".") for name in names)
    image, sd = load_volume(out / f"{stem}.nii.gz"), load_volume(out / f"{stem}_sd.nii.gz")
    assert sd.grid.matches(image.grid)
    brain = load_volume(out / f"{stem}_dseg.nii.gz").data > 0
    # Noise is 3 in units of the scan, tissues are 40 apart.
    assert 1 < float(sd.data[brain].mean()) < 30
    sidecar = json.loads((out / f"{stem}_sd.json").read_text())
    assert sidecar["NMembers"] == 2
    assert sidecar["HeldOut"]["n_voxels"] > 20
    assert sidecar["Parameters"]["Fit"]["tv_weight"] == 0.7
    page = (out / f"{stem}_report.html").read_text()
    assert "<h3>Uncertainty</h3>" in page
    assert "Not seen by the scan" in page
    assert "Correlation of residuals" in page


def test_a_saved_field_is_rendered_with_other_voxels(trusted, tmp_path):
    field = trusted / "out" / "sub-01_T1w_sr_field.safetensors"
    assert main(["render", str(field), str(tmp_path), "--voxel", "4.2"]) == 0
    coarse = load_volume(trusted / "out" / "sub-01_T1w_sr.nii.gz")
    fine = load_volume(tmp_path / "sub-01_T1w_sr_field.nii.gz")
    assert fine.grid.spacing_mm == pytest.approx((4.2,) * 3, rel=1e-4)
    middle = tuple(n // 2 for n in fine.grid.shape)
    assert float(fine.data[middle]) == pytest.approx(
        float(coarse.data[tuple(n // 2 for n in coarse.grid.shape)]), rel=0.1
    )
    assert load_volume(tmp_path / "sub-01_T1w_sr_field_dseg.nii.gz").grid.matches(fine.grid)
    assert main(["render", str(field), str(tmp_path), "--voxel", "4.2"]) == 2, "nothing is overwritten"


def test_a_field_is_rendered_on_the_grid_of_any_file(trusted, tmp_path):
    """Only the header is looked at: four volumes of NaN have a grid, too."""
    scan = nib.load(trusted / "sub-01_T1w.nii.gz")
    values = np.full((*scan.shape, 4), np.nan, np.float32)
    nib.Nifti1Image(values, scan.affine).to_filename(tmp_path / "like.nii.gz")
    field = trusted / "out" / "sub-01_T1w_sr_field.safetensors"
    assert main(["render", str(field), str(tmp_path / "there"), "--like", str(tmp_path / "like.nii.gz")]) == 0
    rendered = load_volume(tmp_path / "there" / "sub-01_T1w_sr_field.nii.gz")
    assert rendered.grid.matches(load_volume(trusted / "sub-01_T1w.nii.gz").grid)


def test_a_preview_makes_no_fit(tmp_path):
    assert superresolve(tmp_path, "out", "--preview", "--no-report") == 0
    sidecar = json.loads((tmp_path / "out" / "sub-01_T1w_sr.json").read_text())
    assert sidecar["Fit"]["NIter"] == 0
    assert "Fit" not in sidecar["Parameters"]
    assert any("preview" in note for note in sidecar["Notes"])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--preview", "--uncertainty", "2"), "makes no fit"),
        (("--init", "nowhere.nii.gz"), "nowhere.nii.gz"),
        (("--device", "cuda:99"), "device 'cuda:99' cannot be used here"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(tmp_path, capfd, options, text):
    assert superresolve(tmp_path, "out", *options) == 2
    assert text in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [("--uncertainty", "3"), ("--regularisation", "much"), ("--prior", "faith")])
def test_options_that_cannot_be(tmp_path, options):
    with pytest.raises(SystemExit, match="2"):
        superresolve(tmp_path, "out", *options)


def test_what_was_fitted_before_an_interruption_is_not_fitted_again(tmp_path, monkeypatch):
    fitted, fit = [], fitting.fit

    def interrupted(*arguments):
        fitted.append(1)
        if len(fitted) == 3:
            raise KeyboardInterrupt
        return fit(*arguments)

    monkeypatch.setattr(fitting, "fit", interrupted)
    options = ("--uncertainty", "2", "--regularisation", "0.7", "--no-report")
    assert superresolve(tmp_path, "out", *options) != 0
    assert len(list((tmp_path / "out" / ".sub-01_T1w_members").iterdir())) == 1
    assert superresolve(tmp_path, "out", *options) == 0
    assert len(fitted) == 3 + 2, "the fit itself and the second member"
    assert not (tmp_path / "out" / ".sub-01_T1w_members").exists()


def write_high_field(folder, name):
    """The same shells at 4 mm, with less contrast between the outer two."""
    place = np.stack(np.meshgrid(*[np.linspace(-1.3, 1.3, n) for n in (40, 46, 42)], indexing="ij"))
    radius = np.linalg.norm(place, axis=0)
    signal = np.select([radius < 0.55, radius < 0.8, radius < 1.0], [300.0, 260.0, 60.0], 0)
    draw = np.random.default_rng(1).normal(0, 3, (2, *signal.shape)) * (signal > 0)
    image = np.hypot(signal + draw[0], draw[1]).astype(np.float32)
    nib.Nifti1Image(image, np.diag([4.0, 4.0, 4.0, 1.0])).to_filename(folder / name)
    return folder / name


def test_image_is_mapped_to_the_contrast_of_a_high_field_scan(tmp_path):
    reference = write_high_field(tmp_path, "other_T1w.nii.gz")
    assert superresolve(tmp_path, "out", "--regularisation", "0.7", "--contrast-of", str(reference)) == 0
    out = tmp_path / "out"
    labels = load_volume(out / "sub-01_T1w_sr_dseg.nii.gz").data
    own, mapped = (load_volume(out / f"sub-01_T1w_{name}.nii.gz").data for name in ("sr", "sr_mapped"))
    grey = [float(image[labels == 2].median() / image[labels == 3].median()) for image in (own, mapped)]
    assert grey == pytest.approx([80 / 110, 260 / 300], abs=0.04)
    assert float(mapped[labels == 3].median()) == pytest.approx(float(own[labels == 3].median()), rel=0.02)
    sidecar = json.loads((out / "sub-01_T1w_sr_mapped.json").read_text())
    assert "other_T1w.nii.gz" in sidecar["SourcesSHA256"]
    assert any("mapped by one rising curve" in note for note in sidecar["Notes"])
    assert "Mapped contrast" in (out / "sub-01_T1w_sr_report.html").read_text()


def test_a_reference_of_another_weighting_is_refused_before_the_fit(tmp_path, capfd):
    reference = write_high_field(tmp_path, "other_T2w.nii.gz")
    assert superresolve(tmp_path, "out", "--contrast-of", str(reference)) == 2
    assert "give a T1w reference" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_likelihood_and_receive_field_are_used_and_written(done, tmp_path):
    assert superresolve(tmp_path, "out", "--likelihood", "absolute", "--bias-field", "--no-report") == 0
    sidecar = json.loads((tmp_path / "out" / "sub-01_T1w_sr.json").read_text())
    assert sidecar["Parameters"]["Likelihood"] == "absolute errors"
    assert sidecar["Parameters"]["FreeOfBias"] is True
    assert any("receive field" in note for note in sidecar["Notes"])
    plain, other = (load_volume(f / "out" / "sub-01_T1w_sr.nii.gz").data for f in (done, tmp_path))
    assert not np.allclose(plain.numpy(), other.numpy())
