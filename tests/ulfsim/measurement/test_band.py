"""The band that a scan fills."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from mrcore.data.grid import Grid, to_world
from mrcore.data.volume import Volume
from mrcore.noise import add_noise
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from ulfsim.measurement.band import acquired_voxel_mm, is_interpolated, on_acquired_voxels


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(48), seed=3)


@pytest.mark.parametrize("sd", [0.001, 0.02, 0.1])
def test_a_scan_of_its_own_voxels_is_not_interpolated_at_any_noise(head, sd):
    scan = Volume(add_noise(head.image.data, sd, seeded(0, "own")), head.grid)
    found = acquired_voxel_mm(scan, head.mask)
    assert found == scan.grid.spacing_mm
    assert not is_interpolated(scan, found)
    assert on_acquired_voxels(scan, found) is scan


@pytest.mark.parametrize("masked", [False, True])
def test_splines_between_voxels_are_seen_on_their_axis_also_behind_a_mask(head, masked):
    data = add_noise(head.image.data, 0.03, seeded(1, "spline")).numpy()
    fine = torch.from_numpy(ndimage.zoom(data, (2, 1, 1), order=3, grid_mode=True, mode="nearest"))
    mask = head.mask.repeat_interleave(2, 0)
    grid = Grid((96, 48, 48), head.grid.affine @ np.diag([0.5, 1, 1, 1]))
    scan = Volume(fine * mask if masked else fine, grid)
    x, y, z = np.array(acquired_voxel_mm(scan, mask)) / head.grid.spacing_mm
    assert 0.8 < x < 1.05
    assert (y, z) == pytest.approx((1, 1))


def test_acquired_voxels_show_the_scan_where_it_was():
    """A Gaussian that both lattices hold, on an odd and an even matrix and an oblique, flipped grid."""
    turn, _ = np.linalg.qr(np.array([[1.0, 0.2, 0.0], [-0.2, 1.0, 0.1], [0.1, 0.0, -1.0]]))
    affine = np.eye(4)
    affine[:3, :3] = turn
    affine[:3, 3] = (5, -7, 11)
    grid = Grid((40, 45, 20), affine)

    def blob(where):
        voxels = np.stack(np.meshgrid(*[np.arange(n) for n in where.shape], indexing="ij"), -1)
        centre = to_world(grid, np.array([19.3, 22.1, 9.6]))
        distance = to_world(where, voxels) - centre
        return torch.from_numpy(np.exp(-(distance**2).sum(-1) / (2 * 3.0**2))).float()

    found = on_acquired_voxels(Volume(blob(grid), grid), (2.0, 1.8, 1.0))
    assert found.grid.shape == (20, 25, 20)
    assert torch.allclose(found.data, blob(found.grid), atol=2e-3)
