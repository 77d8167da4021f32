"""`mrkit.load` and `mrkit.save`."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch

import mrkit
from mrcore import BadInputError, digital_head, head_grid, load_tissues


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(24), seed=1)


@pytest.mark.parametrize("as_path", [str, lambda path: path], ids=["text", "Path"])
def test_what_is_saved_is_loaded(tmp_path, head, as_path):
    (path,) = mrkit.save(head.image, as_path(tmp_path / "new" / "head.nii.gz"), sidecar={"Seed": 3})
    again = mrkit.load(as_path(path))
    assert torch.equal(again.data, head.image.data)
    assert again.grid.matches(head.grid)
    assert again.meta["Seed"] == 3
    assert json.loads(path.with_name("head.json").read_text())["GeneratedBy"][0]["Name"] == "mrkit"


def test_tissues_are_saved_as_labels_and_maps(tmp_path, head):
    written = mrkit.save(head.tissues, tmp_path / "head.nii.gz")
    assert {path.name for path in written} == {
        "head_dseg.nii.gz",
        *(f"head_label-{name}_probseg.nii.gz" for name in ("CSF", "GM", "WM")),
    }
    maps = load_tissues([tmp_path / f"head_label-{name}_probseg.nii.gz" for name in ("CSF", "GM", "WM")])
    assert torch.allclose(maps.prob, head.tissues.prob, atol=1e-6)


def test_nothing_is_overwritten_unasked(tmp_path, head):
    mrkit.save(head.image, tmp_path / "head.nii.gz")
    with pytest.raises(BadInputError, match="exists"):
        mrkit.save(head.image, tmp_path / "head.nii.gz")
    mrkit.save(head.image, tmp_path / "head.nii.gz", force=True)


@pytest.mark.parametrize("name", ["head.mgz", "head.img", "head", "head.nii.bz2"])
def test_a_name_that_says_another_format_is_refused(tmp_path, head, name):
    with pytest.raises(BadInputError, match=r"\.nii or \.nii\.gz"):
        mrkit.save(head.image, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_used_is_refused_on_loading(tmp_path):
    with pytest.raises(BadInputError, match=r"nowhere\.nii"):
        mrkit.load(str(tmp_path / "nowhere.nii"))
    nib.Nifti1Image(np.zeros((4, 4, 4, 2), np.float32), np.eye(4)).to_filename(tmp_path / "two.nii.gz")
    with pytest.raises(BadInputError, match="4"):
        mrkit.load(tmp_path / "two.nii.gz")
