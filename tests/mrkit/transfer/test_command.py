"""`mrkit transfer` from files to files."""

import json

import pytest
import torch

from mrcore.data.volume import Volume
from mrcore.io.volumes import load_volume, save_volume
from mrcore.noise import add_noise
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from mrkit.cli import main
from ulfsim.transfer import load_transfer

GRID = head_grid(24)


def write_pair(folder, seed):
    image = digital_head(GRID, seed=seed).image
    blurred = torch.nn.functional.avg_pool3d(image.data[None, None], 3, stride=1, padding=1)[0, 0]
    low = Volume(add_noise(blurred, 0.02, seeded(seed, "cli")), GRID)
    paths = folder / f"hf{seed}.nii.gz", folder / f"ulf{seed}.nii.gz"
    for path, volume in zip(paths, (image, low), strict=True):
        save_volume(volume, path, sidecar={})
    return paths


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transfer")
    scans = [path for seed in (0, 1) for path in write_pair(folder, seed)]
    assert run("transfer", "fit", *scans, "--out", folder / "tf.npz") == 0
    return folder


def test_fit_names_its_pairs_and_errors(folder, capsys):
    scans = [folder / name for name in ("hf0.nii.gz", "ulf0.nii.gz", "hf1.nii.gz", "ulf1.nii.gz")]
    assert run("transfer", "fit", *scans, "--out", folder / "again.npz", "--smoothness", "0.25") == 0
    text = capsys.readouterr().out
    assert "left-out error" in text
    assert "hf1.nii.gz ulf1.nii.gz" in text
    assert load_transfer(folder / "again.npz").smoothness == 0.25


def test_apply_writes_scan_and_sidecar(folder, tmp_path):
    write_pair(tmp_path, 2)
    image, tf = tmp_path / "hf2.nii.gz", folder / "tf.npz"
    assert run("transfer", "apply", image, tf, tmp_path / "a", "--seed", 3) == 0
    assert run("transfer", "apply", image, tf, tmp_path / "b", "--seed", 3) == 0
    assert run("transfer", "apply", image, tf, tmp_path / "c", "--seed", 4, "--voxel", 8, 9.6, 16.5) == 0
    first, again, other = (tmp_path / out / "hf2_transfer.nii.gz" for out in "abc")
    assert first.read_bytes() == again.read_bytes()
    assert load_volume(first).grid.matches(GRID)
    assert load_volume(other).grid.spacing_mm == pytest.approx((8.0, 9.6, 16.5), rel=1e-5)
    sidecar = json.loads((tmp_path / "a" / "hf2_transfer.json").read_text())
    assert sidecar["Seed"] == 3
    assert sidecar["Sources"] == ["hf2.nii.gz", "tf.npz"]
    assert sidecar["Parameters"]["Pairs"][0] == "hf0.nii.gz ulf0.nii.gz"


def test_errors_are_one_line(folder, tmp_path, capsys):
    image, moved = folder / "hf0.nii.gz", tmp_path / "moved.nii.gz"
    low = load_volume(folder / "ulf0.nii.gz")
    save_volume(Volume(low.data.roll(4, 1), low.grid), moved)
    for arguments, message in (
        (("fit", image, "--out", tmp_path / "t.npz"), "pairs"),
        (("fit", image, folder / "ulf0.nii.gz", "--out", folder / "tf.npz"), "exists already"),
        (("fit", image, folder / "ulf0.nii.gz", "--out", image), "written over"),
        (("fit", image, folder / "ulf0.nii.gz", "--out", tmp_path / "t.npz"), "one pair"),
        (("fit", image, folder / "ulf0.nii.gz", "--out", tmp_path / "t.nii"), ".npz"),
        (("fit", image, moved, "--out", tmp_path / "t.npz"), "hf0.nii.gz moved.nii.gz' do not correlate: 0."),
        (("apply", image, image, tmp_path), "no transfer function"),
    ):
        assert run("transfer", *arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
