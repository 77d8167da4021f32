from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from mrcore.segmentation.brainmask import (
    BrainMask,
    is_skull_stripped,
    require_reliable,
    stripped_mask,
    template_brain_mask,
)
from mrcore.segmentation.foreground import largest_part
from mrcore.spatial.registration import rotation

BRAIN = digital_head(head_grid(64, 208.0))
HEAD = digital_head(head_grid(64, 208.0), skull=True)


def dice(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def load(path: Path) -> Volume:
    image = nib.load(path)
    return Volume(torch.from_numpy(np.asarray(image.dataobj, dtype=np.float32)), Grid(image.shape, image.affine))


def test_a_brain_is_told_from_a_head():
    assert is_skull_stripped(BRAIN.image)
    assert not is_skull_stripped(HEAD.image)


def test_the_sidecar_decides():
    assert not is_skull_stripped(Volume(BRAIN.image.data, BRAIN.grid, {"SkullStripped": False}))
    assert is_skull_stripped(Volume(HEAD.image.data, HEAD.grid, {"SkullStripped": True}))


def test_noise_outside_and_a_cut_object_are_no_stripped_brain():
    noise = 0.05 * torch.rand(BRAIN.grid.shape, generator=seeded(0, "background"))
    assert not is_skull_stripped(Volume(torch.maximum(BRAIN.image.data, noise), BRAIN.grid))
    middle = BRAIN.image.data[:, :, 24:40].contiguous()
    assert not is_skull_stripped(Volume(middle, Grid((64, 64, 16), BRAIN.grid.affine)))


def test_stripped_mask_survives_negative_and_float_noise_background():
    generator = seeded(0, "float noise")
    tiny = 1e-6 * torch.randn(BRAIN.grid.shape, generator=generator)
    data = BRAIN.image.data + tiny
    data[::7, ::5, ::3] -= torch.where(BRAIN.mask[::7, ::5, ::3], 0.0, 0.2)
    found = stripped_mask(Volume(data, BRAIN.grid))
    assert is_skull_stripped(Volume(data, BRAIN.grid))
    assert dice(found, BRAIN.image.data > 0) > 0.97


def test_stripped_mask_fills_holes_and_leaves_islands():
    data = BRAIN.image.data.clone()
    data[32, 32, 32] = 0
    data[1, 1, 1] = 1.0
    found = stripped_mask(Volume(data, BRAIN.grid))
    assert bool(found[32, 32, 32])
    assert not bool(found[1, 1, 1])


def test_stripped_mask_over_a_noisy_background():
    noise = 0.03 * torch.randn((2, *BRAIN.grid.shape), generator=seeded(0, "noise"))
    data = torch.hypot(BRAIN.image.data + noise[0], noise[1])
    assert dice(stripped_mask(Volume(data, BRAIN.grid)), BRAIN.mask) > 0.95


def test_images_without_a_brain_are_refused():
    with pytest.raises(BadInputError, match="constant"):
        is_skull_stripped(Volume(torch.ones(8, 8, 8), Grid((8, 8, 8), np.eye(4))))
    with pytest.raises(BadInputError, match="complex"):
        stripped_mask(Volume(torch.ones(8, 8, 8, dtype=torch.complex64), Grid((8, 8, 8), np.eye(4))))
    spot = torch.zeros(8, 8, 8)
    spot[4, 4, 4] = 1
    with pytest.raises(BadInputError, match="--mask"):
        stripped_mask(Volume(spot, Grid((8, 8, 8), np.eye(4))))


def test_largest_part_joins_through_faces_only():
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, :3] = True
    mask[1, 1, 0] = True
    assert largest_part(mask).sum() == 3
    assert largest_part(np.zeros((2, 2, 2), bool)).sum() == 0


def test_template_finds_the_brain_of_a_moved_head():
    motion = rotation((0.1, 0.05, -0.08))
    motion[:3, 3] = [4.0, -9.0, 12.0]
    head = Volume(HEAD.image.data, Grid(HEAD.grid.shape, motion @ HEAD.grid.affine))
    found = template_brain_mask(head, BRAIN.image, Volume(BRAIN.mask.float(), BRAIN.grid))
    assert dice(found.mask, BRAIN.mask) > 0.93
    assert found.reliable
    assert require_reliable(found) is found
    assert "template" in found.method


@pytest.mark.slow  # everything is tried before a head is refused
def test_a_template_that_does_not_fit_is_reported():
    small = digital_head(head_grid(32, 208.0))  # its voxels are larger than the finest level: quick
    x, y, z = torch.meshgrid(*[torch.linspace(-1, 1, 32)] * 3, indexing="ij")
    ball = (x**2 + y**2 + z**2 < 0.5).float() + 0.01 * torch.rand(32, 32, 32, generator=seeded(0, "ball"))
    found = template_brain_mask(Volume(ball, small.grid), small.image, Volume(small.mask.float(), small.grid))
    assert not found.reliable
    assert found.cautions == ()
    with pytest.raises(BadInputError, match=r"does not fit this image.*--mask.*--masker deepbet"):
        require_reliable(found)


def test_unreliable_masks_raise_and_grids_must_agree():
    poor = BrainMask(BRAIN.mask, "template registration", 0.1, False, "the brain template does not fit this image")
    with pytest.raises(BadInputError, match="give a brain mask with --mask"):
        require_reliable(poor)
    with pytest.raises(GridMismatchError, match="template and its mask"):
        template_brain_mask(HEAD.image, BRAIN.image, Volume(torch.ones(8, 8, 8), Grid((8, 8, 8), np.eye(4))))


HEADS = (
    "t1/brainchop_t1_head.nii.gz",
    "t1/visualqc_id001_orig.mgz",
    "t1/colin27_ch2_head.nii.gz",
    "t1/openms_long_p01_T1W_raw.nii.gz",
    "t1/openms_long_p01_T2W_raw.nii.gz",
    "t1/openms_long_p01_FLAIR_raw.nii.gz",
    "ulf/lowgan_MS017_64mT_T1w.nii.gz",
    "ulf/lowgan_MS017_64mT_T2w.nii.gz",
    "ulf/lowgan_MS017_64mT_FLAIR.nii.gz",
)
BRAINS = (
    "t1/visualqc_id001_brainmask.mgz",
    "t1/niimath_T1_brain_0p8mm.nii.gz",
    "t1/colin27_ch2_brain.nii.gz",
    "t1/stroke_3T_T1_brain.nii.gz",
    "t1/openms_p26_FLAIR_brain_mni1mm.nii.gz",
    "template/mni152_sym09a_t1.nii.gz",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", BRAINS + HEADS)
def test_real_scans_with_and_without_skull(shared_data, name):
    volume = load(shared_data / name)
    assert is_skull_stripped(volume) == (name in BRAINS)
    if name in BRAINS:
        litres = float(stripped_mask(volume).sum()) * np.prod(volume.grid.spacing_mm) / 1e6
        assert 0.9 < litres < 2.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "brain"),
    [
        ("t1/visualqc_id001_orig.mgz", "t1/visualqc_id001_brainmask.mgz"),
        ("t1/colin27_ch2_head.nii.gz", "t1/colin27_ch2_brain.nii.gz"),
    ],
)
def test_mask_of_a_real_head_agrees_with_its_stripped_twin(shared_data, head, brain):
    template = load(shared_data / "template/mni152_sym09a_t1.nii.gz")
    inside = Volume(stripped_mask(template).float(), template.grid)
    found = template_brain_mask(load(shared_data / head), template, inside)
    assert found.reliable
    assert dice(found.mask, stripped_mask(load(shared_data / brain))) > 0.94


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fruit_3T_GE_IRSPGR.nii.gz", "philips_acr_like_phantom_T1FFE.nii.gz"])
def test_what_is_no_head_is_not_trusted(shared_data, name):
    template = load(shared_data / "template/mni152_sym09a_t1.nii.gz")
    inside = Volume(stripped_mask(template).float(), template.grid)
    assert not template_brain_mask(load(shared_data / "misc" / name), template, inside).reliable
