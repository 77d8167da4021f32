import pytest
import torch

from iqt.audit.drift import image_drift
from mrcore.data.acquisition import gaussian_psf
from mrcore.data.grid import Grid
from mrcore.errors import BadInputError
from mrcore.forward import covering_grid, imaging_operator
from mrcore.noise import add_noise
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded

VOXEL_MM = (3.0, 3.0, 6.0)
SD = 0.03


@pytest.fixture(scope="module")
def scene():
    head = digital_head(head_grid(96, 192.0))
    scan_grid = covering_grid(head.grid, 6.0)
    affine = scan_grid.affine.copy()
    affine[:3, :2] /= 2
    scan_grid = Grid((64, 64, 32), affine)
    operator = imaging_operator(head.grid, scan_grid, gaussian_psf(VOXEL_MM))
    mask = operator(head.mask.float()) > 0.6
    scan = add_noise(operator(head.image.data), SD, seeded(0, "noise"))
    return head.image.data, operator, mask, scan


def test_an_image_in_place_has_not_drifted(scene):
    image, operator, mask, scan = scene
    found = image_drift(scan, operator(image), VOXEL_MM, mask)
    assert max(map(abs, found.shift_mm)) < 0.05
    assert max(map(abs, found.turn_deg)) < 0.1
    assert found.largest_voxels < 0.25
    assert not found.alarm


def test_intensities_that_differ_are_no_drift(scene):
    image, operator, mask, scan = scene
    found = image_drift(scan, 0.9 * operator(image) + 0.05, VOXEL_MM, mask)
    assert max(map(abs, found.shift_mm)) < 0.1


@pytest.mark.parametrize(("axis", "voxels"), [(0, 1), (1, -1), (2, 1)])
def test_a_shift_comes_back_with_axis_and_sign(scene, axis, voxels):
    image, operator, mask, scan = scene
    shifted = torch.roll(image, voxels, axis)  # by 2 mm along the object's axis
    found = image_drift(scan, operator(shifted), VOXEL_MM, mask)
    expected = [0.0, 0.0, 0.0]
    expected[axis] = -2.0 * voxels
    assert found.shift_mm == pytest.approx(expected, abs=0.4)
    assert found.largest_mm > 1.2


def test_a_part_that_moved_is_found_where_it_is(scene):
    image, operator, mask, scan = scene
    moved = image.clone()
    moved[:48] = torch.roll(image, 2, 1)[:48]  # the left half, by 4 mm
    found = image_drift(scan, operator(moved), VOXEL_MM, mask)
    assert found.alarm
    left, right = found.local_mm[1][:28], found.local_mm[1][36:]
    assert left[mask[:28].numpy()].mean() < -1.2
    assert abs(right[mask[36:].numpy()].mean()) < 0.3


def test_what_cannot_be_compared_is_refused(scene):
    _, _, mask, scan = scene
    with pytest.raises(BadInputError, match="one shape"):
        image_drift(scan, scan[1:], VOXEL_MM, mask)
    with pytest.raises(BadInputError, match="100 voxels"):
        image_drift(scan, scan, VOXEL_MM, torch.zeros_like(mask))
