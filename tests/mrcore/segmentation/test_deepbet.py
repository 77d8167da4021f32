import sys
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest
import torch

from mrcore.data.volume import Volume
from mrcore.errors import BadInputError, MissingExtraError
from mrcore.phantom import digital_head, head_grid
from mrcore.segmentation.deepbet import deepbet_brain_mask

HEAD = digital_head(head_grid(32), skull=True)


def fake_deepbet(monkeypatch, mask: np.ndarray) -> list[nib.Nifti1Image]:
    given = []

    class BrainExtraction:
        def __init__(self, no_gpu):
            assert no_gpu

        def run(self, image):
            given.append(image)
            return image, nib.Nifti1Image(mask.astype(np.uint8), image.affine), 0.0

    module = ModuleType("deepbet")
    module.BrainExtraction = BrainExtraction
    monkeypatch.setitem(sys.modules, "deepbet", module)
    return given


def test_the_image_is_handed_over_and_the_mask_comes_back(monkeypatch):
    island = HEAD.mask.numpy().copy()
    island[0, 0, 0] = True
    given = fake_deepbet(monkeypatch, island)
    found = deepbet_brain_mask(HEAD.image)
    assert torch.equal(found.mask, HEAD.mask)
    assert np.allclose(given[0].affine, HEAD.grid.affine)
    assert np.array_equal(np.asarray(given[0].dataobj), HEAD.image.data.numpy())
    assert found.reliable
    assert found.method == "deepbet"


def test_an_implausible_volume_is_not_trusted_and_no_brain_is_refused(monkeypatch):
    small = np.zeros(HEAD.grid.shape, bool)
    small[10:13, 10:13, 10:13] = True
    fake_deepbet(monkeypatch, small)
    found = deepbet_brain_mask(HEAD.image)
    assert not found.reliable
    assert "not plausible" in found.message
    fake_deepbet(monkeypatch, small & False)
    with pytest.raises(BadInputError, match="--mask"):
        deepbet_brain_mask(HEAD.image)


def test_without_deepbet_the_extra_is_named(monkeypatch):
    def refuse(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", refuse)
    with pytest.raises(MissingExtraError, match=r'pip install "mrkit\[deepbet\]"'):
        deepbet_brain_mask(HEAD.image)


def test_complex_images_are_refused():
    with pytest.raises(BadInputError, match="complex"):
        deepbet_brain_mask(Volume(HEAD.image.data.to(torch.complex64), HEAD.grid))
