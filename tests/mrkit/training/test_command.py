"""`mrkit train-denoiser` as a user runs it: a few steps on small heads."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch

from mrcore.denoisers.files import load_denoiser
from mrcore.phantom import digital_head, head_grid
from mrkit.cli import main
from mrkit.training import job


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A T1w image, a label map and relaxation maps of digital heads of 48 voxels a side."""
    made = tmp_path_factory.mktemp("heads")
    head = digital_head(head_grid(48))
    for name, data in (
        ("t1w/t1.nii.gz", head.image.data),
        ("labels/labels.nii.gz", (head.tissues.prob.argmax(0) + 1) * head.mask),
    ):
        (made / name).parent.mkdir()
        nib.save(nib.Nifti1Image(data.numpy().astype(np.float32), head.grid.affine), made / name)
    (made / "t1w" / "t1.json").write_text(json.dumps({"License": "CC0"}))
    maps = {"t1_ms": 1000 * head.t1_s, "t2_ms": 1000 * head.t2_s, "pd_real": head.pd, "pd_imag": 0 * head.pd}
    np.savez(made / "maps.npz", **{name: value.movedim(2, 0).numpy() for name, value in maps.items()})
    return made


def call(*arguments):
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code


def test_few_steps_give_a_denoiser_with_its_card(folder, tmp_path, capsys):
    out = tmp_path / "net.safetensors"
    data = ("--images", folder / "t1w", "--maps", folder / "maps.npz", "--labels", folder / "labels")
    assert call("train-denoiser", out, *data, "--dims", 2, "--steps", 2, "--seed", 5) == 0
    assert capsys.readouterr().out == f"{out}\n"
    card = json.loads(out.with_suffix(".json").read_text())["Card"]
    assert [source["name"] for source in card["sources"]] == ["t1.nii.gz", "maps.npz", "labels.nii.gz"]
    assert [source["licence"] for source in card["sources"]] == ["CC0", "not stated", "not stated"]
    assert (card["n_steps"], card["seed"]) == (2, 5)
    # Longer, from where it stopped; the same data are asked for, and the result is not written over unasked.
    more = ("--dims", 2, "--steps", 3, "--seed", 5, "--resume")
    assert call("train-denoiser", out, *data, *more) == 2
    assert "exists already" in capsys.readouterr().err
    assert call("train-denoiser", out, *data[:2], *more, "--force") == 2
    assert "resume with the same settings" in capsys.readouterr().err
    assert call("train-denoiser", out, *data, *more, "--force") == 0
    found = load_denoiser(out)
    assert found.card.n_steps == 3
    x = torch.rand(50, 70)
    assert not torch.equal(found(x, 0.1), x)


def test_volumes_are_the_default(folder, tmp_path):
    out = tmp_path / "net.safetensors"
    assert call("train-denoiser", out, "--labels", folder / "labels", "--steps", 1) == 0
    assert load_denoiser(out).net.settings.n_dims == 3


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((), "nothing to train on"),
        (("--images", "missing.nii.gz"), "no such file"),
        (("--maps", "t1w/t1.nii.gz"), "holds no maps"),
        (("--images", "labels", "--dims", "4"), "invalid choice"),
        (("--images", "."), "holds no file"),
        (("--labels", "t1w/t1.nii.gz"), "different values"),
    ],
)
def test_bad_data_are_refused_and_nothing_is_written(folder, tmp_path, capsys, arguments, match):
    given = [folder / word if not word.startswith("-") and not word.isdigit() else word for word in arguments]
    assert call("train-denoiser", tmp_path / "net.safetensors", *given) == 2
    assert match in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_name_of_another_kind_is_refused(folder, tmp_path, capsys):
    assert call("train-denoiser", tmp_path / "net.pt", "--images", folder / "t1w") == 2
    assert ".safetensors" in capsys.readouterr().err


def test_relaxation_maps_are_read_in_milliseconds(folder, monkeypatch):
    """The same anatomy as that of the head in seconds, up to the rounding of its slices."""
    seen = {}
    monkeypatch.setattr(job, "maps_anatomy", lambda _, t1_s, t2_s, pd, planes: seen.update(t1=t1_s, t2=t2_s, pd=pd))
    job._maps(folder / "maps.npz", "maps")
    head = digital_head(head_grid(48))
    for name, truth in (("t1", head.t1_s), ("t2", head.t2_s), ("pd", head.pd)):
        assert torch.allclose(seen[name], truth.movedim(2, 0), rtol=1e-5), name


def test_what_a_folder_holds_in_vain_is_left_out_and_said(folder, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    (images / "good.nii.gz").write_bytes((folder / "t1w" / "t1.nii.gz").read_bytes())
    (images / "lost.nii.gz").symlink_to("../.git/annex/objects/aa/bb/MD5E--0.nii.gz/MD5E--0.nii.gz")
    (images / "._good.nii.gz").write_bytes(b"of macOS")
    out = tmp_path / "net.safetensors"
    few = ("--dims", 2, "--steps", 1)
    assert call("train-denoiser", out, "--images", images, *few) == 3
    text = capsys.readouterr().err
    assert "lost.nii.gz was left out" in text
    assert "git annex get lost.nii.gz" in text
    assert "1 image was left out" in text
    assert "._good" not in text
    assert [s["name"] for s in json.loads(out.with_suffix(".json").read_text())["Card"]["sources"]] == ["good.nii.gz"]
    assert call("train-denoiser", tmp_path / "b.safetensors", "--images", images, *few, "--strict") == 2
    assert call("train-denoiser", tmp_path / "b.safetensors", "--images", images / "lost.nii.gz", *few) == 2
    (images / "good.nii.gz").write_bytes(b"")
    assert call("train-denoiser", tmp_path / "b.safetensors", "--images", images, *few) == 2
    assert "none of 2 files can be used to train on" in capsys.readouterr().err
    assert not (tmp_path / "b.safetensors").exists()
