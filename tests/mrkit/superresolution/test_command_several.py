"""`mrkit superresolve` of several scans of one person: files to files, motion found, contrasts kept apart."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from operators import grid

from inr.scans.alignment import Pose, posed
from mrcore.data.acquisition import gaussian_psf
from mrcore.data.volume import Volume
from mrcore.forward import imaging_operator, predict
from mrcore.io.volumes import load_volume
from mrcore.metrics.similarity import psnr
from mrcore.noise import add_noise
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from mrcore.spatial.resampling import resample
from mrkit.cli import main

SPACINGS = {"ax_T1w": (4.0, 4.0, 9.0), "sag_T1w": (9.0, 4.0, 4.0), "ax_T2w": (4.0, 4.0, 9.0)}
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
    arguments = ["superresolve", *scans, folder / out, "--tissues", folder / "labels.nii.gz", "--voxel", "4"]
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


def test_image_is_better_than_cubic_and_keeps_its_units(done):
    folder, head = done
    ours, theirs = (load_volume(folder / "out" / f"ax_T1w_{kind}.nii.gz") for kind in ("sr", "cubic"))
    truth = 500 * resample(head.image, ours.grid, order=3).data
    mask = resample(Volume(head.mask.float(), head.grid), ours.grid, order=1).data > 0.5
    assert psnr(truth, ours.data, mask) > psnr(truth, theirs.data, mask) + 1
    core = mask & (truth > 450)
    assert float(ours.data[core].mean() / truth[core].mean()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("option", [("--init", "x.nii.gz"), ("--uncertainty", "2"), ("--compare",), ("--preview",)])
def test_options_for_one_scan_are_refused(done, option, capsys):
    folder, _ = done
    assert superresolve(folder, "refused", *option) != 0
    assert "takes one scan, got 3" in capsys.readouterr().err
    assert not (folder / "refused").exists()


def test_the_weight_is_chosen_by_all_scans_and_written(done):
    folder, _ = done
    sidecar = json.loads((folder / "out" / "ax_T1w_sr.json").read_text())
    assert sidecar["Parameters"]["Regularisation"] == "chosen by held-out voxels"
    said = next(note for note in sidecar["Notes"] if note.startswith("weight of total variation"))
    assert f"variation {sidecar['Parameters']['Fit']['tv_weight']:.2g} per mm" in said
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


def test_names_that_would_collide_are_refused(done, capsys):
    folder, _ = done
    assert superresolve(folder, "twice", names=("ax_T1w", "ax_T1w")) != 0
    assert "two are named 'ax_T1w'" in capsys.readouterr().err
