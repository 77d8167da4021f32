import math

import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid
from mrcore.errors import BadInputError
from recon.trajectories.builders import cartesian, radial, spiral, spiral_projection, stack_of_spirals
from recon.trajectories.trajectory import Trajectory, cartesian_index

SLICE = Grid((32, 24, 1), np.diag([2.0, 2.5, 4.0, 1.0]))
VOLUME = Grid((32, 24, 10), np.diag([2.0, 2.5, 4.0, 1.0]))


def arms(trajectory: Trajectory, n_arms: int) -> torch.Tensor:
    """Positions (arms, samples, 3) in cycles per field of view."""
    return (trajectory.k_cyc_per_mm * torch.tensor(trajectory.grid.fov_mm)).reshape(n_arms, -1, 3)


def test_two_columns_are_a_slice():
    k = torch.rand(5, 2, dtype=torch.float64) * 0.2
    trajectory = Trajectory(k, torch.arange(5), 5, SLICE)
    assert torch.equal(trajectory.k_cyc_per_mm, torch.cat((k, torch.zeros(5, 1)), 1))


@pytest.mark.parametrize(
    ("factor", "unit"),
    [
        (1e3, "cycles/m"),
        (10.0, "cycles/cm"),
        (2 * math.pi, "rad/mm"),
        (2e3 * math.pi, "rad/m"),
        (torch.tensor([2.0, 2.5, 4.0]), "cycles/voxel"),
        (2 * math.pi * torch.tensor([2.0, 2.5, 4.0]), "rad/voxel"),
        (torch.tensor([64.0, 60.0, 40.0]), "cycles/FOV"),
    ],
)
def test_other_units_are_named(factor, unit):
    good = spiral_projection(VOLUME, 4, 4, 2)
    with pytest.raises(BadInputError, match=rf"they look like {unit}\b(?!/)"):
        Trajectory(good.k_cyc_per_mm * factor, good.frame, 4, VOLUME)


def test_positions_too_near_the_centre_are_refused():
    good = radial(SLICE, 4)
    with pytest.raises(BadInputError, match=r"reaches 0\.001 times the Nyquist frequency.*no common unit"):
        Trajectory(good.k_cyc_per_mm / 1000, good.frame, 4, SLICE)


@pytest.mark.parametrize(
    ("k", "frame", "message"),
    [
        (torch.zeros(3, 4), torch.arange(3), r"must be real \(N, 3\)"),
        (torch.tensor([[0.1, math.nan]]), torch.arange(1), "1 positions in k-space are not finite"),
        (torch.full((3, 2), 0.1), torch.arange(2), r"int64 \(3,\)"),
        (torch.full((3, 2), 0.1), torch.arange(3.0), "int64"),
        (torch.full((3, 2), 0.1), torch.arange(1, 4), "between 0 and 2, got 1 to 3"),
    ],
)
def test_what_is_no_trajectory_is_refused(k, frame, message):
    with pytest.raises(BadInputError, match=message):
        Trajectory(k, frame, 3, SLICE)


def test_volumes_need_three_columns():
    with pytest.raises(BadInputError, match=r"needs positions \(N, 3\)"):
        Trajectory(torch.full((3, 2), 0.1), torch.arange(3), 3, VOLUME)


@pytest.mark.parametrize("density_power", [1.0, 2.0])
def test_spiral_arms_are_nyquist_sampled_along_and_across(density_power):
    n_interleaves = 4
    arm = arms(spiral(SLICE, 3, n_interleaves, density_power=density_power), 3)[0]
    steps = (arm[1:] - arm[:-1]) / torch.tensor([32 / 32, 24 / 32, 1])  # of a square matrix of 32
    steps = steps.norm(dim=1)
    assert float(steps.max()) <= 1.0
    assert float(steps[5:].min()) > 0.95
    radius = (arm / torch.tensor([1, 24 / 32, 1])).norm(dim=1)
    assert float(radius[0]) == 0
    assert float(radius[-1]) == pytest.approx(16)
    angle = np.unwrap(torch.atan2(arm[1:, 1] * 32 / 24, arm[1:, 0]).numpy())
    turn = np.interp(angle[-1] - 2 * np.pi, angle, radius[1:].numpy())
    assert 16 - turn == pytest.approx(n_interleaves, rel=0.02 if density_power == 1 else 0.15)


def test_arms_of_later_frames_turn_by_the_golden_angle():
    k = arms(spiral(SLICE, 2, 8), 2) / torch.tensor([1, 24 / 32, 1])
    turn = torch.atan2(k[1, -1, 1], k[1, -1, 0]) - torch.atan2(k[0, -1, 1], k[0, -1, 0])
    assert math.degrees(turn) % 360 == pytest.approx(222.492, abs=1e-2)


def test_radial_lines_pass_the_centre_and_turn_by_the_golden_angle():
    trajectory = radial(SLICE, 6, lines_per_frame=2, n_samples=64)
    k = arms(trajectory, 12) / torch.tensor([1, 24 / 32, 1])
    assert float(k[:, 32].norm(dim=1).max()) == 0
    assert torch.allclose(k[:, 0].norm(dim=1), torch.full((12,), 16.0, dtype=torch.float64))
    turn = torch.atan2(k[1, 63, 1], k[1, 63, 0]) - torch.atan2(k[0, 63, 1], k[0, 63, 0])
    assert math.degrees(turn) % 360 == pytest.approx(111.246, abs=1e-2)
    assert trajectory.frame.bincount().tolist() == [128] * 6


def test_stacks_share_partitions_between_frames():
    trajectory = stack_of_spirals(VOLUME, 6, 4, partition_step=3)
    kz = (trajectory.k_cyc_per_mm[:, 2] * 40).round().to(torch.int64)
    for frame in range(6):
        assert kz[trajectory.frame == frame].unique().tolist() == [z - 5 for z in range(10) if (z - frame) % 3 == 0]
    assert float((trajectory.k_cyc_per_mm[:, 2] * 40 - kz).abs().max()) < 1e-9


def test_spiral_projections_are_planar_and_cover_the_sphere():
    k = arms(spiral_projection(VOLUME, 50, 4, 4), 200) / torch.tensor([32, 24, 10]) * 2
    singular = torch.linalg.svdvals(k)
    assert float(singular[:, 2].max()) < 1e-9
    assert torch.allclose(k[:, -1].norm(dim=1), torch.ones(200, dtype=torch.float64))
    spread = torch.linalg.eigvalsh(k.reshape(-1, 3).T @ k.reshape(-1, 3) / k.square().sum())
    assert torch.allclose(spread, torch.full((3,), 1 / 3, dtype=torch.float64), atol=0.02)


def test_cartesian_masks_find_their_voxels():
    mask = torch.rand(3, 32, 24, 10, generator=torch.Generator().manual_seed(0)) < 0.1
    trajectory = cartesian(mask, VOLUME)
    index = cartesian_index(trajectory)
    assert torch.equal(mask.reshape(3, -1).nonzero(), torch.stack((trajectory.frame, index), 1))


def test_cartesian_index_is_not_for_lines_that_turn():
    assert cartesian_index(radial(SLICE, 3)) is None


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: spiral(VOLUME, 3, 4), "one slice"),
        (lambda: spiral(SLICE, 3, 0), "n_interleaves must be at least 1"),
        (lambda: spiral(SLICE, 3, 4, density_power=0.5), "density_power"),
        (lambda: radial(SLICE, 0), "n_frames must be at least 1"),
        (lambda: cartesian(torch.zeros(2, 32, 24, 1, dtype=torch.bool), SLICE), "not empty"),
        (lambda: cartesian(torch.ones(2, 24, 32, 1, dtype=torch.bool), SLICE), r"mask \(frames, 32, 24, 1\)"),
    ],
)
def test_builders_refuse_what_they_cannot_build(build, message):
    with pytest.raises(BadInputError, match=message):
        build()
