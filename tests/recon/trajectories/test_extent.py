from itertools import permutations

import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid
from mrcore.errors import BadInputError
from recon.trajectories.builders import radial, spiral, stack_of_spirals
from recon.trajectories.extent import extent_cautions, trajectory_in, unit_cautions
from recon.trajectories.trajectory import Trajectory
from recon.trajectories.units import K_UNITS, worth_cyc_per_mm

SLICE = Grid((32, 24, 1), np.diag([1.2, 1.2, 4.0, 1.0]))
VOLUME = Grid((32, 32, 10), np.diag([1.0, 1.0, 4.0, 1.0]))


def scaled(trajectory, factor):
    k = trajectory.k_cyc_per_mm * torch.as_tensor(factor, dtype=torch.float64)
    return Trajectory(k, trajectory.frame, trajectory.n_frames, trajectory.grid)


@pytest.mark.parametrize("trajectory", [radial(SLICE, 20), spiral(SLICE, 20, 4), stack_of_spirals(VOLUME, 20, 4)])
def test_a_k_space_that_is_filled_needs_no_word(trajectory):
    assert extent_cautions(trajectory) == ()
    assert unit_cautions(trajectory, "cycles/mm") == ()


def test_a_small_part_of_the_band_is_told_and_an_axis_that_is_not_encoded():
    assert extent_cautions(scaled(radial(SLICE, 20), 0.51)) == ()
    (found,) = extent_cautions(scaled(radial(SLICE, 20), 0.4))
    assert found.rank == 0
    assert "reach only 40% of the Nyquist" in found
    (flat,) = extent_cautions(scaled(stack_of_spirals(VOLUME, 20, 4), (1, 1, 0)))
    assert "not encoded along z" in flat


def test_the_unit_that_would_fill_the_band_is_named():
    """1.2 mm voxels: cycles/mm that were read as cycles/voxel reach 83 %, and a map would be 20 % too large."""
    (found,) = unit_cautions(scaled(radial(SLICE, 20), 1 / 1.2), "cycles/voxel")
    assert "say --k-unit cycles/mm" in found
    assert "83% x 83%" in found
    (thick,) = unit_cautions(scaled(stack_of_spirals(VOLUME, 20, 4), (1, 1, 0.25)), "cycles/voxel")
    assert "say --k-unit cycles/mm" in thick
    assert unit_cautions(scaled(radial(SLICE, 20), 0.7), "cycles/mm") == ()  # zero filling: no unit explains it


@pytest.mark.parametrize("grid", [SLICE, VOLUME, Grid((64, 64, 1), np.diag([0.9, 0.9, 5.0, 1.0]))])
def test_no_unit_taken_for_another_passes_without_a_word(grid):
    """Every unit read as every other: refused or told, and always with the right one named."""
    k = stack_of_spirals(grid, 12, 4).k_cyc_per_mm if grid is VOLUME else radial(grid, 12).k_cyc_per_mm
    worth = {unit: torch.from_numpy(worth_cyc_per_mm(unit, grid.spacing_mm, grid.fov_mm)) for unit in K_UNITS}
    for true, said in permutations(K_UNITS, 2):
        if torch.allclose(worth[true], worth[said]):
            continue
        read, frame = k / worth[true] * worth[said], torch.zeros(len(k), dtype=torch.int64)
        try:
            words = unit_cautions(trajectory_in(said, read, frame, 1, grid), said)
        except BadInputError as error:
            words = (str(error),)
        assert any(true in word for word in words), (true, said)
