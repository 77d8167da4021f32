"""Trajectories: where and in which frame every sample of k-space was taken."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mrcore.data.brief import Brief
from mrcore.data.grid import Grid
from mrcore.errors import BadInputError

_BEYOND_NYQUIST = 1.05  # gradients overshoot a little
_ON_GRID = 1e-3  # cycles per field of view


@dataclass(frozen=True, eq=False, repr=False)
class Trajectory(Brief):
    """N samples at `k_cyc_per_mm` (N, 3) along the voxel axes of `grid`, each in a `frame` (N,) from 0 to `n_frames`.

    The image to reconstruct lies on `grid`. (N, 2) is for grids of one slice and gets a column of zeros. All frames
    are in one row, in any order; a frame may be empty.

    Raises:
        BadInputError: arrays that do not fit, positions that are not finite, or beyond what the grid can hold: the
            message names the unit in which they seem to be.
    """

    k_cyc_per_mm: Tensor
    frame: Tensor
    n_frames: int
    grid: Grid

    def __post_init__(self) -> None:
        k, frame = self.k_cyc_per_mm, self.frame
        if k.ndim != 2 or k.shape[1] not in (2, 3) or len(k) == 0 or not k.is_floating_point():
            raise BadInputError(f"k_cyc_per_mm must be real (N, 3), or (N, 2) in 2-D, got {k.dtype} {tuple(k.shape)}")
        if k.shape[1] == 2 and self.grid.shape[2] != 1:
            raise BadInputError(f"a grid of {self.grid.shape} needs positions (N, 3), got {tuple(k.shape)}")
        if not bool(torch.isfinite(k).all()):
            raise BadInputError(f"{int((~torch.isfinite(k)).sum())} positions in k-space are not finite")
        if frame.shape != (len(k),) or frame.dtype != torch.int64:
            raise BadInputError(
                f"frame must be int64 ({len(k)},), one a sample, got {frame.dtype} {tuple(frame.shape)}"
            )
        if int(frame.min()) < 0 or int(frame.max()) >= self.n_frames:
            raise BadInputError(
                f"frames must lie between 0 and {self.n_frames - 1}, got {int(frame.min())} to {int(frame.max())}; "
                "they count from 0"
            )
        _check_unit(k, self.grid)
        object.__setattr__(self, "k_cyc_per_mm", torch.nn.functional.pad(k, (0, 3 - k.shape[1])))

    @property
    def n_samples(self) -> int:
        """Number of samples of one coil, all frames together."""
        return len(self.frame)


def cartesian_index(trajectory: Trajectory) -> Tensor | None:
    """Return flat indices (N,) into centred k-space if all samples lie on frequencies of the DFT, else None."""
    fov_mm, shape = trajectory.grid.fov_mm, trajectory.grid.shape
    steps = trajectory.k_cyc_per_mm.double() * torch.tensor(fov_mm, dtype=torch.float64)
    whole = steps.round()
    varying = torch.tensor([n > 1 for n in shape])
    if bool(((steps - whole).abs() > _ON_GRID)[:, varying].any()):
        return None
    index = torch.zeros(len(steps), dtype=torch.int64)
    for axis, n in enumerate(shape):
        place = (whole[:, axis].to(torch.int64) + n // 2) % n  # +n/2 and -n/2 are the same frequency
        index = index * n + place
    return index


def _check_unit(k: Tensor, grid: Grid) -> None:
    """Refuse positions beyond the Nyquist frequency, or so near the centre that they cannot encode an image."""
    spacing, fov = (np.array(v) for v in (grid.spacing_mm, grid.fov_mm))
    varying = [axis for axis, n in enumerate(grid.shape) if n > 1]
    largest = np.array([float(k[:, axis].abs().max()) if axis < k.shape[1] else 0.0 for axis in range(3)])
    of_nyquist = _of_nyquist(largest, spacing, varying)
    if of_nyquist <= _BEYOND_NYQUIST and (not varying or float((largest * fov)[varying].max()) >= 1):
        return
    in_cyc_per_mm = {
        "cycles/m (divide by 1000)": largest / 1e3,
        "cycles/cm (divide by 10)": largest / 10,
        "rad/mm (divide by 2 pi)": largest / (2 * math.pi),
        "rad/m (divide by 2000 pi)": largest / (2e3 * math.pi),
        "cycles per voxel, -0.5 to 0.5 (divide by the voxel size)": largest / spacing,
        "radians per voxel, -pi to pi (divide by 2 pi times the voxel size)": largest / (2 * math.pi * spacing),
        "cycles per field of view, -n/2 to n/2 (divide by the field of view)": largest / fov,
    }
    reached = {unit: _of_nyquist(value, spacing, varying) for unit, value in in_cyc_per_mm.items()}
    unit, best = min(reached.items(), key=lambda item: abs(math.log(max(item[1], 1e-30))))
    guess = f"they look like {unit}" if 0.5 < best <= _BEYOND_NYQUIST else "no common unit explains them"
    raise BadInputError(
        f"k_cyc_per_mm reaches {of_nyquist:.3g} times the Nyquist frequency of the grid {grid.shape} with voxels of "
        f"{', '.join(f'{s:.3g}' for s in spacing)} mm (0.5 cycles/voxel); {guess}. "
        "If the unit is right, the grid is not"
    )


def _of_nyquist(largest: np.ndarray, spacing: np.ndarray, varying: list[int]) -> float:
    return float((2 * largest * spacing)[varying].max()) if varying else 0.0
