"""Whether the extent of the samples in k-space goes with the grid and with the unit that they were read in."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from mrcore.data.grid import Grid, Triple
from mrcore.errors import BadInputError
from mrcore.notes import Caution
from recon.trajectories.trajectory import Trajectory, largest_cyc_per_mm
from recon.trajectories.units import band_filled, fitting_units, misfit, worth_cyc_per_mm

_SMALL_PART = 0.5  # of the band
_WELL = math.log(1 / 0.95)  # units that fill the band to this part explain the extent
_AXES = "xyz"


def extent_cautions(trajectory: Trajectory) -> tuple[Caution, ...]:
    """Return what must be said where samples fill only a small part of the band, or do not encode an axis at all."""
    grid = trajectory.grid
    filled = band_filled(largest_cyc_per_mm(trajectory.k_cyc_per_mm), grid)
    if np.isnan(filled).all():
        return ()
    missing = [_AXES[axis] for axis in range(3) if filled[axis] == 0]
    found = []
    if missing:
        text = f"k-space is not encoded along {' and '.join(missing)}, where the grid {grid.summary} has several voxels"
        found.append(Caution(text, rank=0))
    if (reached := float(np.nanmax(filled))) < _SMALL_PART:
        text = (
            f"samples reach only {reached:.0%} of the Nyquist frequency of the grid {grid.summary}: maps are as much "
            "blunter than their voxels, or the unit of k-space is another (--k-unit) and they are of a wrong size"
        )
        found.append(Caution(text, rank=0))
    return tuple(found)


def trajectory_in(
    k_unit: str,
    k_cyc_per_mm: Tensor,
    frame: Tensor,
    n_frames: int,
    grid: Grid,
    spacing_mm: Triple | None = None,
    fov_mm: Triple | None = None,
) -> Trajectory:
    """Return the trajectory of positions that were read in `k_unit`; the rest as for `unit_cautions`.

    Raises:
        BadInputError: what `Trajectory` refuses, with the unit of k that would fit, where one does.
    """
    try:
        return Trajectory(k_cyc_per_mm, frame, n_frames, grid)
    except BadInputError as error:
        if k_cyc_per_mm.ndim != 2 or k_cyc_per_mm.shape[1] not in (2, 3) or not bool(k_cyc_per_mm.isfinite().all()):
            raise
        space = (spacing_mm or grid.spacing_mm, fov_mm or grid.fov_mm)
        largest = largest_cyc_per_mm(k_cyc_per_mm) / worth_cyc_per_mm(k_unit, *space)
        units = list(fitting_units(largest, *space, grid))
        if not units or k_unit in units:
            raise
        text = f"positions in k-space cannot be in {k_unit}, they fit {' or '.join(units)}: say --k-unit {units[0]}"
        raise BadInputError(text) from error


def unit_cautions(
    trajectory: Trajectory, k_unit: str, spacing_mm: Triple | None = None, fov_mm: Triple | None = None
) -> tuple[Caution, ...]:
    """Return a caution where another unit than `k_unit`, in which positions were read, would just fill the band.

    `spacing_mm` and `fov_mm` are those of the encoded space (None: of the grid).
    """
    grid = trajectory.grid
    space = (spacing_mm or grid.spacing_mm, fov_mm or grid.fov_mm)
    largest = largest_cyc_per_mm(trajectory.k_cyc_per_mm)
    filled = band_filled(largest, grid)
    units = fitting_units(largest / worth_cyc_per_mm(k_unit, *space), *space, grid)
    if k_unit in units or misfit(filled) < _WELL or min(units.values(), default=math.inf) > _WELL:
        return ()
    shares = " x ".join(f"{share:.0%}" for share in filled[np.isfinite(filled)])
    text = (
        f"positions in k-space were read in {k_unit}, where they fill {shares} of the band of the grid {grid.summary}; "
        f"in {' or '.join(units)} they would just fill it: if that is their unit, say --k-unit {next(iter(units))}, "
        "else maps have a wrong size"
    )
    return (Caution(text, rank=0),)
