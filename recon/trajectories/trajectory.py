"""Trajectories: where and in which frame every sample of k-space was taken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrcore.data.brief import Brief
from mrcore.data.grid import Grid
from mrcore.errors import BadInputError
from recon.trajectories.units import BEYOND_NYQUIST, band_filled, fitting_units, worth_cyc_per_mm

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


def largest_cyc_per_mm(k_cyc_per_mm: Tensor) -> NDArray[np.float64]:
    """Return the largest coordinate along each of the three axes, of positions (N, 2 or 3)."""
    largest = k_cyc_per_mm.abs().amax(0).double().cpu().numpy()
    padded: NDArray[np.float64] = np.pad(largest, (0, 3 - len(largest)))
    return padded


def _check_unit(k: Tensor, grid: Grid) -> None:
    """Refuse positions beyond the Nyquist frequency, or so near the centre that they cannot encode an image."""
    largest = largest_cyc_per_mm(k)
    filled = band_filled(largest, grid)
    if np.isnan(filled).all():
        return
    reached = float(np.nanmax(filled))
    if reached <= BEYOND_NYQUIST and float(np.nanmax(filled * grid.shape)) >= 2:  # a cycle over the field of view
        return
    units = list(fitting_units(largest, grid.spacing_mm, grid.fov_mm, grid))
    guess = "no common unit explains them"
    if units:
        worth = np.unique(worth_cyc_per_mm(units[0], grid.spacing_mm, grid.fov_mm))
        factors = ", ".join(f"{value:.4g}" for value in worth)
        guess = f"they look like {' or '.join(units)} (times {factors}{' by axis' if len(worth) > 1 else ''})"
    raise BadInputError(
        f"k_cyc_per_mm reaches {reached:.3g} times the Nyquist frequency of the grid {grid.shape} with voxels of "
        f"{', '.join(f'{s:.3g}' for s in grid.spacing_mm)} mm (0.5 cycles/voxel); {guess}. "
        "If the unit is right, the grid is not"
    )
