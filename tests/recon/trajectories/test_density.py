import math

import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid
from mrcore.errors import BadInputError
from recon.encoding.encoding import subspace_encoding
from recon.encoding.subspace import Subspace
from recon.trajectories.builders import cartesian, radial, spiral, stack_of_spirals
from recon.trajectories.density import density_compensation
from recon.trajectories.trajectory import Trajectory

SLICE = Grid((32, 24, 1), np.diag([2.0, 2.5, 4.0, 1.0]))


def test_full_cartesian_frames_weigh_one():
    trajectory = cartesian(torch.ones(3, 16, 12, 1, dtype=torch.bool), Grid((16, 12, 1), np.diag([2, 2.5, 4, 1])))
    torch.testing.assert_close(density_compensation(trajectory), torch.ones(3 * 16 * 12), rtol=0.02, atol=0)


def test_samples_taken_twice_weigh_half():
    grid = Grid((12, 10, 8), np.diag([2.0, 2.5, 4.0, 1.0]))
    mask = torch.ones(2, 12, 10, 8, dtype=torch.bool)
    mask[1, :6] = False
    weights = density_compensation(cartesian(mask, grid), n_iter=50)
    first = weights[: 12 * 10 * 8].reshape(12, 10, 8)
    assert float(first[2:4].mean()) == pytest.approx(2, rel=0.05)  # once in two frames
    assert float(first[8:10].mean()) == pytest.approx(1, rel=0.05)


def test_radial_weights_are_a_ramp():
    n_lines, n_samples = 144, 64
    weights = density_compensation(radial(SLICE, n_lines), n_iter=30).reshape(n_lines, n_samples).mean(0) / n_lines
    radius = (torch.arange(n_samples) - 32).abs() / 2  # in 1/FOV of the matrix of 32; samples are 1/2 apart
    ramp = math.pi * radius / n_lines / 2 * (24 / 32)  # area of the ring, shared by 2 samples of each line
    inner = (radius > 2) & (radius < 14)
    torch.testing.assert_close(weights[inner], ramp[inner].float(), rtol=0.05, atol=0)


@pytest.mark.parametrize("density_power", [1.0, 2.0])
def test_weighted_normal_operator_of_full_spirals_is_the_identity(density_power):
    """Of images within the disc that spirals cover."""
    trajectory = spiral(SLICE, 8, 4, density_power=density_power)
    weights = density_compensation(trajectory)
    basis = Subspace(torch.full((8, 1), 8**-0.5), torch.ones(8) / 8)
    one = torch.ones(1, *SLICE.shape, dtype=torch.complex64)
    smooth = torch.zeros(1, *SLICE.shape, dtype=torch.complex64)
    smooth[0, 12:20, 9:15] = torch.hann_window(8, False)[:, None, None] * torch.hann_window(6, False)[:, None]
    result = subspace_encoding(trajectory, basis, one, weights).normal(smooth)
    assert float((result - smooth).norm() / smooth.norm()) < 0.05
    plain = subspace_encoding(trajectory, basis, one).normal(smooth)
    assert float((plain / plain.abs().max() - smooth / smooth.abs().max()).norm() / smooth.norm()) > 0.2


def test_stacks_are_compensated_in_three_dimensions():
    grid = Grid((16, 16, 6), np.diag([2.0, 2.0, 4.0, 1.0]))
    trajectory = stack_of_spirals(grid, 16, 4)
    weights = density_compensation(trajectory)
    covered = float(weights.sum()) / 16 / (16 * 16 * 6)
    assert covered == pytest.approx(math.pi / 4, rel=0.15)


def test_order_does_not_matter():
    trajectory = radial(SLICE, 20)
    order = torch.randperm(trajectory.n_samples, generator=torch.Generator().manual_seed(0))
    shuffled = Trajectory(trajectory.k_cyc_per_mm[order], trajectory.frame[order], 20, SLICE)
    torch.testing.assert_close(
        density_compensation(shuffled), density_compensation(trajectory)[order], rtol=1e-2, atol=1e-3
    )


def test_no_iteration_is_refused():
    with pytest.raises(BadInputError, match="at least one"):
        density_compensation(radial(SLICE, 3), n_iter=0)
