"""`mrkit superresolve` of several scans of one person: files to files, motion found, contrasts kept apart."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from operators import grid

from inr.scans.alignment import Pose, posed
from mrcore.data.acquisition import gaussian_psf
from mrcore.data.grid import to_world
from mrcore.data.volume import Volume
from mrcore.forward import imaging_operator, predict
from mrcore.io.volumes import load_volume
from mrcore.metrics.similarity import psnr
from mrcore.noise import add_noise
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from mrcore.spatial.resampling import resample
from mrkit.cli import main
from mrkit.files.job import Job
from mrkit.superresolution import comparison
from mrkit.superresolution.job import SuperresolveJob

SPACINGS = {"ax_T1w": (4.0, 4.0, 9.0), "sag_T1w": (9.0, 4.0, 4.0), "ax_T2w": (4.0, 4.0, 9.0)}
TWO = ("ax_T1w", "ax_T2w")
"""Where poses are no matter: nothing has to be aligned."""
MOTION = Pose((0.0, 3.0, 2.0), (3.0, 0.0, -2.0))


def write(folder):
    """Two T1w stacks, the second moved, and one T2w; a label map on the first; the head itself."""
    head = digital_head(head_grid(48, 192.0), seed=2)
    inverted = (1.6 - head.image.data) * head.mask
    for name, spacing in SPACINGS.items():
        shape = tuple(round(160 / s) for s in spacing)
        stated = grid(shape, spacing)
        true = posed(stated, MOTION) if name == "sag_T1w" else stated
        operator = imaging_operator(head.grid, true, gaussian_psf(spacing))
        image = inverted if name == "ax_T2w" else head.image.data
        scan = 500 * add_noise(predict(operator, image), 0.02, seeded(1, name))
        nib.Nifti1Image(scan.numpy(), stated.affine).to_filename(folder / f"{name}.nii.gz")
        if name == "ax_T1w":
            maps = torch.stack([resample(Volume(p, head.grid), stated, order=1).data for p in head.tissues.prob])
            labels = torch.where(maps.sum(0) > 0.5, maps.argmax(0) + 1, 0).numpy().astype(np.uint8)
            nib.Nifti1Image(labels, stated.affine).to_filename(folder / "labels.nii.gz")
    return head


def superresolve(folder, out, *options, names=tuple(SPACINGS)):
    scans = [folder / f"{name}.nii.gz" for name in names]
    arguments = ["superresolve", *scans, folder / out, "--tissues", folder / "labels.nii.gz", "--voxel", "5"]
    return main([str(argument) for argument in (*arguments, *options)])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    head = write(folder)
    assert superresolve(folder, "out") == 0
    return folder, head


def test_each_contrast_has_an_image_and_each_scan_a_residual(done):
    folder, _ = done
    names = {path.name.removesuffix(".nii.gz") for path in (folder / "out").glob("*.nii.gz")}
    tissues = {"ax_T1w_sr_dseg", *(f"ax_T1w_sr_label-{name}_probseg" for name in ("CSF", "GM", "WM"))}
    expected = {"ax_T1w_sr", "ax_T1w_cubic", "ax_T2w_sr", "ax_T2w_cubic"} | {f"{n}_residualz" for n in SPACINGS}
    assert names == expected | tissues
    assert (folder / "out" / "ax_T1w_sr_report.html").stat().st_size > 10_000


def test_motion_is_found_and_written(done):
    folder, _ = done
    sidecar = json.loads((folder / "out" / "ax_T1w_sr.json").read_text())
    stacks = {entry["Scan"]: entry for entry in sidecar["Parameters"]["Stacks"]}
    moved = stacks["sag_T1w.nii.gz"]
    assert moved["ShiftMm"] == pytest.approx(MOTION.shift_mm, abs=1.0)
    assert moved["TurnDeg"] == pytest.approx(MOTION.turn_deg, abs=1.5)
    assert stacks["ax_T1w.nii.gz"]["ShiftMm"] == [0.0, 0.0, 0.0]


def test_the_pose_of_each_scan_is_told_once_as_the_fit_leaves_it(done):
    folder, _ = done
    notes = json.loads((folder / "out" / "ax_T1w_sr.json").read_text())["Notes"]
    assert [note.split(":")[0] for note in notes if "turned by" in note] == ["scan 2 (T1w)", "scan 3 (T2w)"]


def test_image_is_better_than_cubic_and_keeps_its_units(done):
    folder, head = done
    ours, theirs = (load_volume(folder / "out" / f"ax_T1w_{kind}.nii.gz") for kind in ("sr", "cubic"))
    truth = 500 * resample(head.image, ours.grid, order=3).data
    mask = resample(Volume(head.mask.float(), head.grid), ours.grid, order=1).data > 0.5
    assert psnr(truth, ours.data, mask) > psnr(truth, theirs.data, mask) + 1
    core = mask & (truth > 450)
    assert float(ours.data[core].mean() / truth[core].mean()) == pytest.approx(1, abs=0.05)


def load(folder, name):
    return load_volume(folder / f"{name}.nii.gz")


def notes(folder, name="ax_T1w_sr"):
    return json.loads((folder / f"{name}.json").read_text())["Notes"]


def truth_on(head, grid, inverted=False):
    image = (1.6 - head.image.data) * head.mask if inverted else head.image.data
    mask = resample(Volume(head.mask.float(), head.grid), grid, order=1).data > 0.5
    return 500 * resample(Volume(image, head.grid), grid, order=3).data, mask


def test_a_preview_makes_no_fit(done):
    folder, head = done
    assert superresolve(folder, "preview", "--preview") == 0
    image = load(folder / "preview", "ax_T1w_sr")
    truth, mask = truth_on(head, image.grid)
    assert psnr(truth, image.data, mask) > psnr(truth, load(folder / "preview", "ax_T1w_cubic").data, mask)
    assert "preview: a Tikhonov image, without a fit" in notes(folder / "preview")
    assert (folder / "preview" / "ax_T1w_sr_report.html").is_file()


def test_an_image_to_start_from_serves_the_contrast_that_it_explains(done):
    """The head itself, moved and in other units: detail that no slice shows comes from it, in T1w alone."""
    folder, head = done
    affine = head.grid.affine.copy()
    affine[:3, 3] += (4.0, -3.0, 2.0)
    nib.Nifti1Image(7 * head.image.data.numpy(), affine).to_filename(folder / "earlier.nii.gz")
    assert superresolve(folder, "init", "--init", folder / "earlier.nii.gz", "--preview", names=TWO) == 0
    assert superresolve(folder, "plain", "--preview", names=TWO) == 0
    error = {}
    for out in ("init", "plain"):
        image = load(folder / out, "ax_T1w_sr")
        truth, mask = truth_on(head, image.grid)
        error[out] = psnr(truth, image.data, mask)
    assert error["init"] > error["plain"] + 1
    same = [load(folder / out, "ax_T2w_sr").data for out in ("init", "plain")]
    assert torch.equal(*same)
    assert any("of the T1w scan's variance" in note for note in notes(folder / "init"))


def test_absolute_errors_move_less_for_scattered_spikes(done):
    """A voxel in a hundred of both T1w scans: too few to cost a slice its weight."""
    folder, head = done
    spoilt = folder / "spoilt"
    spoilt.mkdir()
    generator = np.random.default_rng(3)
    for name in (*SPACINGS, "labels"):
        image = nib.load(folder / f"{name}.nii.gz")
        data = np.asarray(image.dataobj).copy()
        if name.endswith("T1w"):
            data[(generator.random(data.shape) < 0.01) & (data > 200)] += 1000
        nib.Nifti1Image(data, image.affine).to_filename(spoilt / f"{name}.nii.gz")
    error = {}
    for likelihood in ("rician", "absolute"):
        options = ("--likelihood", likelihood, "--regularisation", "0.5")
        assert superresolve(spoilt, likelihood, *options, names=("ax_T1w", "sag_T1w")) == 0
        found = load(spoilt / likelihood, "ax_T1w_sr")
        truth, mask = truth_on(head, found.grid)
        error[likelihood] = float((found.data - truth)[mask].square().mean())
    assert error["absolute"] < 0.5 * error["rician"]


def test_receive_fields_are_taken_out_of_each_contrast(done, tmp_path):
    """All scans have one field of 0.75 to 1.25 from left to right; the images have less of it than without."""
    folder, head = done
    for name in (*SPACINGS, "labels"):
        image = nib.load(folder / f"{name}.nii.gz")
        data = np.asarray(image.dataobj)
        if name != "labels":
            at = nib.affines.apply_affine(image.affine, np.argwhere(np.ones(data.shape)))[:, 0].reshape(data.shape)
            data = (data * (1 + 0.25 * (at / 80).clip(-1, 1))).astype(np.float32)
        nib.Nifti1Image(data, image.affine).to_filename(tmp_path / f"{name}.nii.gz")
    slope = {}
    for out, options in (("plain", ()), ("free", ("--bias-field",))):
        assert superresolve(tmp_path, out, "--regularisation", "1.5", *options, names=TWO) == 0
        for name, inverted in (("ax_T1w_sr", False), ("ax_T2w_sr", True)):
            found = load(tmp_path / out, name)
            truth, mask = truth_on(head, found.grid, inverted)
            core = mask & (truth > 300)
            x = torch.from_numpy(to_world(found.grid, core.nonzero().numpy())[:, 0]) / 80
            ratio = (found.data[core] / truth[core]).double()
            slope[out, name] = float((x * (ratio / ratio.mean() - 1)).mean() / x.square().mean())
    for name in ("ax_T1w_sr", "ax_T2w_sr"):
        assert slope["plain", name] > 0.15
        assert abs(slope["free", name]) < 0.5 * slope["plain", name]
    fields = [note for note in notes(tmp_path / "free") if "receive field" in note]
    assert [note.split(":")[0] for note in fields] == ["T1w", "T2w"]


def test_maps_of_trust_are_written_for_each_contrast(done):
    folder, head = done
    options = ("--uncertainty", "2", "--regularisation", "1.5", "--no-report")
    assert superresolve(folder, "trust", *options, names=TWO) == 0
    for name, inverted in (("ax_T1w", False), ("ax_T2w", True)):
        image, sd, unseen = (load(folder / "trust", f"{name}_sr{kind}") for kind in ("", "_sd", "_nullspace"))
        truth, mask = truth_on(head, image.grid, inverted)
        z = ((image.data - truth) / sd.data)[mask]
        # Edges of whole voxels in the digital head are sharper than any voxel of the lattice shows.
        assert float((z.abs() < 2).double().mean()) > 0.7
        assert 0 < float(unseen.data[mask].abs().mean()) < 0.3 * float(image.data[mask].mean())
    assert any(note.startswith("uncertainty: 2 fits") for note in notes(folder / "trust"))


def test_methods_are_compared_over_all_scans(done, monkeypatch):
    folder, _ = done
    real = comparison.methods

    def few(*arguments):
        chosen = real(*arguments)
        assert not any("HULFSynth" in name for name in chosen), "it has no poses"
        return {name: chosen[name] for name in ("trilinear", "cubic", "Tikhonov", "Huber-TV", "TV + Hessian")}

    monkeypatch.setattr(comparison, "methods", few)
    assert superresolve(folder, "compared", "--compare", "--regularisation", "1.5") == 0
    table = json.loads((folder / "compared" / "ax_T1w_sr_comparison.json").read_text())
    errors = {name: row["Held-out error (noise sd)"] for name, row in table["methods"].items()}
    assert errors["Huber-TV"] < errors["cubic"]
    assert errors["TV + Hessian"] < errors["trilinear"]
    assert "TV + Hessian" in (folder / "compared" / "ax_T1w_sr_report.html").read_text()


def test_the_contrast_of_a_reference_goes_to_the_image_of_its_weighting(done, capsys):
    folder, head = done
    nib.Nifti1Image(head.image.data.numpy(), head.grid.affine).to_filename(folder / "hf_T1w.nii.gz")
    options = ("--regularisation", "1.5", "--contrast-of")
    assert superresolve(folder, "mapped", *options, folder / "hf_T1w.nii.gz", names=TWO) == 0
    written = {path.name for path in (folder / "mapped").glob("*_mapped.nii.gz")}
    assert written == {"ax_T1w_sr_mapped.nii.gz"}, notes(folder / "mapped")
    nib.Nifti1Image(head.image.data.numpy(), head.grid.affine).to_filename(folder / "hf_FLAIR.nii.gz")
    assert superresolve(folder, "refused", *options, folder / "hf_FLAIR.nii.gz", names=TWO) == 2
    assert "the scan is T1w and T2w and the contrast reference FLAIR" in capsys.readouterr().err
    assert not (folder / "refused").exists()


def test_the_weight_is_chosen_by_all_scans_and_written(done):
    folder, _ = done
    sidecar = json.loads((folder / "out" / "ax_T1w_sr.json").read_text())
    assert sidecar["Parameters"]["Regularisation"] == "chosen by held-out voxels"
    why = next(note for note in sidecar["Notes"] if note.startswith("weight of total variation"))
    assert f"variation {sidecar['Parameters']['Fit']['tv_weight']:.2g} per mm" in why
    assert sidecar["Parameters"]["Device"] == "cpu"


def test_a_device_that_is_not_there(done, capsys):
    folder, _ = done
    assert superresolve(folder, "refused", "--device", "cuda:99") != 0
    assert "device 'cuda:99' cannot be used here" in capsys.readouterr().err
    assert not (folder / "refused").exists()


def test_nothing_is_overwritten(done, capsys):
    folder, _ = done
    assert superresolve(folder, "out") != 0
    assert "exist" in capsys.readouterr().err


def test_scans_of_one_name_from_two_folders_get_results_of_their_own(tmp_path):
    scans = [tmp_path / folder / "T1w.nii.gz" for folder in ("ax", "cor")]
    job = SuperresolveJob(Job(scans[0], tmp_path / "out"), (scans[1],))
    assert [path.name for path in job.images([0])][:3] == [
        "ax_T1w_sr.nii.gz",
        "ax_T1w_cubic.nii.gz",
        "ax_T1w_residualz.nii.gz",
    ]
    assert "cor_T1w_residualz.nii.gz" in {path.name for path in job.images([0])}


def test_names_that_would_collide_are_refused(done, capsys):
    folder, _ = done
    assert superresolve(folder, "twice", names=("ax_T1w", "ax_T1w")) != 0
    assert "two of one folder are named 'ax_T1w'" in capsys.readouterr().err
