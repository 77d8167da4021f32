"""Heads of children, turned heads and headers with wrong axes: where a template's registration starts and ends."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid, to_world
from mrcore.data.volume import Volume
from mrcore.io.volumes import load_volume
from mrcore.notes import Caution
from mrcore.phantom import digital_head, head_grid
from mrcore.segmentation.brainmask import BrainMask, require_reliable, stripped_mask, template_brain_mask
from mrcore.segmentation.head_search import SCALES, adult_starts, axis_orders, head_points, head_starts
from mrcore.spatial.registration import rotation

HEAD = digital_head(head_grid(48), skull=True)
BRAIN_MM = to_world(HEAD.grid, np.argwhere(HEAD.mask.numpy()))
# An order of axes that is none of the header's: what lies to the right is called anterior, and so on.
PERMUTED = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])


def turned(degrees, scale=1.0):
    return rotation(tuple(np.radians(degrees))) @ np.diag([scale, scale, scale, 1.0])


def moved(volume: Volume, motion: np.ndarray) -> Volume:
    """The head as it would lie after `motion`; its header is right about that."""
    return Volume(volume.data, Grid(volume.grid.shape, motion @ volume.grid.affine))


def nearest_mm(starts, truth) -> float:
    """Mean distance by which the best of the starts misplaces the brain."""
    points = np.c_[BRAIN_MM, np.ones(len(BRAIN_MM))] @ truth.T
    back = [np.linalg.norm((points @ start.T)[:, :3] - BRAIN_MM * 1.06, axis=1).mean() for start in starts]
    return float(min(back))


CENTRE_MM = BRAIN_MM.mean(0) * 1.06


def all_starts(head: Volume, **options):
    points = head_points(head)
    return [start for scale in SCALES for start in head_starts(points, CENTRE_MM, scale, **options)]


@pytest.mark.parametrize(
    "motion",
    [np.eye(4), turned((30, 0, 0)), turned((0, 25, 0)), turned((0, 0, -25)), turned((10, -15, 0), 0.75)],
    ids=["straight", "nodding", "leaning", "looking aside", "small and oblique"],
)
def test_a_guess_is_near_wherever_the_head_lies(motion):
    assert nearest_mm(all_starts(moved(HEAD.image, motion)), motion) < 20.0


def test_guesses_of_adults_alone_are_far_from_a_child():
    motion = turned((0, 0, 0), 0.75)
    child = moved(HEAD.image, motion)
    adults = adult_starts(head_points(child), CENTRE_MM)
    assert nearest_mm(all_starts(child), motion) < nearest_mm(adults, motion) - 3.0


def test_orders_of_axes_are_all_turns_by_right_angles():
    orders = axis_orders()
    assert len({order.tobytes() for order in orders}) == 23
    for order in orders:
        assert np.linalg.det(order) == pytest.approx(1.0)
        assert np.array_equal(order @ order.T, np.eye(4))
        assert not np.array_equal(order, np.eye(4))


def test_starts_with_other_axes_undo_a_wrong_header():
    wrong = moved(HEAD.image, PERMUTED)
    right = next(order for order in axis_orders() if np.array_equal(order, PERMUTED.T))
    assert nearest_mm(all_starts(wrong, axes=right, tilted=False), PERMUTED) < 20.0
    assert nearest_mm(all_starts(wrong), PERMUTED) > 40.0


def test_who_is_refused_hears_of_the_other_masker():
    for method, other in (("template registration", "deepbet"), ("deepbet", "template")):
        poor = BrainMask(HEAD.mask, method, 0.1, False, "it does not fit")
        with pytest.raises(ValueError, match=f"give a brain mask with --mask, .* or try --masker {other}"):
            require_reliable(poor)


def dice(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.fixture(scope="module")
def template(shared_data: Path) -> tuple[Volume, Volume]:
    image = load_volume(shared_data / "template/mni152_sym09a_t1.nii.gz")
    return image, Volume(stripped_mask(image).float(), image.grid)


@pytest.fixture(scope="module")
def heads(shared_data, template):
    """Real heads, and the masks that they have as they are."""
    found = {}
    for name in ("t1/brainchop_t1_head.nii.gz", "ulf/lowgan_MS017_64mT_T1w.nii.gz"):
        head = load_volume(shared_data / name)
        found[name[:3]] = head, template_brain_mask(head, *template)
        assert found[name[:3]][1].reliable
    return found


def in_pir(volume: Volume) -> Volume:
    """The same image with its voxel axes in the order posterior, inferior, right, and the header that says so."""
    change = nib.orientations.ornt_transform(
        nib.io_orientation(volume.grid.affine), nib.orientations.axcodes2ornt(("P", "I", "R"))
    )
    data = np.ascontiguousarray(nib.apply_orientation(volume.data.numpy(), change))
    affine = volume.grid.affine @ nib.orientations.inv_ornt_aff(change, volume.grid.shape)
    return Volume(torch.from_numpy(data), Grid(data.shape, affine))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "degrees", "scale", "least"),
    [
        ("t1/", (30, 0, 0), 1.0, 0.97),
        ("t1/", (15, -15, 15), 0.8, 0.97),
        ("t1/", (-15, 0, 0), 0.75, 0.97),
        # Of 1.6 x 1.6 x 5 mm at an SNR of 15 the size is told less well.
        ("ulf", (0, 30, 0), 1.0, 0.95),
        ("ulf", (0, 0, 0), 0.85, 0.85),
        ("ulf", (0, 0, 0), 0.75, 0.9),
    ],
)
def test_a_turned_and_smaller_head_has_the_same_mask(heads, template, which, degrees, scale, least):
    head, mask = heads[which]
    found = template_brain_mask(moved(head, turned(degrees, scale)), *template)
    assert found.reliable
    assert found.cautions == ()
    assert dice(found.mask, mask.mask) > least


@pytest.mark.slow
def test_a_small_oblique_head_in_pir_axes_with_missing_slices(heads, template):
    head, mask = heads["t1/"]
    small = in_pir(moved(head, turned((15, 5, 0), 0.8)))
    data = small.data.clone()
    data[:, :, ::11] = 0
    found = template_brain_mask(Volume(data, small.grid), *template)
    assert found.reliable
    assert small.grid.orientation == "PIR"
    as_before = in_pir(Volume(mask.mask.float(), head.grid)).data > 0.5
    whole = torch.ones_like(as_before)
    whole[:, :, ::11] = False
    assert dice(found.mask & whole, as_before & whole) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("which", ["t1/", "ulf"])
def test_a_header_with_wrong_axes_has_the_same_mask_and_a_caution(heads, template, which):
    head, mask = heads[which]
    found = template_brain_mask(moved(head, PERMUTED), *template)
    assert found.reliable
    assert dice(found.mask, mask.mask) > 0.92
    (caution,) = found.cautions
    assert isinstance(caution, Caution)
    assert caution.rank == 0
    assert "left and right may be wrong" in caution
