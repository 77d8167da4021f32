"""`mrkit train-iqt` as a user runs it: a few steps on small heads."""

import json
import re

import nibabel as nib
import numpy as np
import pytest
import torch

from iqt.files import load_restorer
from mrcore.phantom import digital_head, head_grid
from mrkit.cli import main
from ulfsim.cubes.cubes import draw_cubes

CONFIG = """
out = "net.safetensors"
held_out = ["b_T1w.nii.gz"]
n_test_cubes = 1
images = [{{ paths = ["*_T1w.nii.gz"] }}]
labels = [{{ paths = ["*_dseg.nii.gz"], weight = 0.5 }}]
cubes = {{ shape = [24, 24, 20], n_cubes = 1 }}
network = {{ widths = [8, 8, 8], n_blocks = [1, 1, 1], n_transformers = 1, n_heads = 2 }}
training = {{ n_steps = {n_steps}, checkpoint_every = 1, n_warmup = 0 }}
licences = {{ a_ = "CC0" }}
"""


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Brains of about 100 mm at 1.3 mm, and a label map."""
    made = tmp_path_factory.mktemp("heads")
    head = digital_head(head_grid(80), texture=0.03)
    affine = np.diag([1.3, 1.3, 1.3, 1.0])
    for name, data in (
        ("a_T1w", head.image.data * head.mask),
        ("b_T1w", (head.image.data * head.mask).flip(0)),
        ("thick_T1w", (head.image.data * head.mask)[:, :, ::3]),
        ("a_dseg", (head.tissues.prob.argmax(0) + 1) * head.mask),
    ):
        there = affine @ np.diag([1.0, 1.0, 3.0, 1.0]) if name.startswith("thick") else affine
        nib.save(nib.Nifti1Image(data.numpy().astype(np.float32), there), made / f"{name}.nii.gz")
    return made


def _run(folder, n_steps, *more):
    (folder / "train.toml").write_text(CONFIG.format(n_steps=n_steps))
    try:
        return main(["train-iqt", str(folder / "train.toml"), *more])
    except SystemExit as stop:
        return stop.code


def test_a_network_with_its_card(heads, capsys):
    out = heads / "net.safetensors"
    assert _run(heads, 2, "--force") == 0
    assert "thick_T1w.nii.gz: training heads need voxels of about 1 mm" in capsys.readouterr().err
    card = json.loads(out.with_suffix(".json").read_text())["Card"]
    assert [source["name"] for source in card["sources"]] == ["a_T1w.nii.gz", "a_dseg.nii.gz"]
    assert [source["licence"] for source in card["sources"]] == ["CC0", "CC0"]
    assert card["held_out"] == ["b_T1w.nii.gz"]
    assert {name.rsplit(" ", 1)[0] for name in card["gains_db"]} == {"b_T1w.nii.gz SNR"}
    assert card["n_steps"] == 2


def test_a_run_that_was_killed_ends_with_the_same_bits(heads, monkeypatch, capsys):
    out = heads / "net.safetensors"
    assert _run(heads, 3, "--force") == 0
    whole = load_restorer(out).net.state_dict()
    out.unlink()

    def killed(anatomies, settings, generator, seen=[]):  # noqa: B006  counts its calls
        seen.append(generator)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return draw_cubes(anatomies, settings, generator)

    with monkeypatch.context() as patched:
        patched.setattr("mrkit.iqt_training.job.draw_cubes", killed)
        assert _run(heads, 3, "--force") == 130
    assert not out.exists()
    capsys.readouterr()
    assert _run(heads, 3) == 2
    assert "exists already" in capsys.readouterr().err
    assert _run(heads, 3, "--resume") == 0
    again = load_restorer(out).net.state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("out = 1 =", "cannot be read as TOML"),
        ('out = "n.safetensors"', "needs 'out'"),
        ('out = "n.safetensors"\nimages = [{ paths = ["*_T1w.nii.gz"] }]\nsteps = 3', "keys that are not known: steps"),
        ('out = "n.safetensors"\nimages = [{ paths = ["none*"] }]', "no file matches 'none\\*'"),
        (
            'out = "n.safetensors"\nimages = [{ paths = ["a*"] }]\ncubes = { ranges = ["far"] }',
            "ranges are of",
        ),
        ('out = "n.safetensors"\nimages = [{ paths = ["*_T1w.nii.gz"] }]\nnetwork = { depth = 3 }', "not known: depth"),
        ('out = "n.safetensors"\nimages = [{ paths = ["thick*"] }]\ntraining = { n_steps = 1 }', "none of the 1 files"),
    ],
)
def test_training_files_that_say_something_wrong(heads, capsys, text, message):
    (heads / "bad.toml").write_text(text)
    assert main(["train-iqt", str(heads / "bad.toml")]) == 2
    assert re.search(message, capsys.readouterr().err)
