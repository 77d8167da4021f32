"""Units of positions in k-space, and which of them the extent of the samples speaks for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from mrcore.data.grid import Grid, Triple
from mrcore.errors import BadInputError

BEYOND_NYQUIST = 1.05  # gradients overshoot a little
_LEAST_FILLED = 0.5  # of the band: a unit that leaves more of it empty is no explanation
_AS_GOOD = math.log(1.02)  # units that differ by less from one another explain the extent alike

_PER_MM: Mapping[str, float] = MappingProxyType(
    {
        "cycles/mm": 1.0,
        "cycles/cm": 0.1,
        "cycles/m": 1e-3,
        "rad/mm": 1 / (2 * math.pi),
        "rad/cm": 0.1 / (2 * math.pi),
        "rad/m": 1e-3 / (2 * math.pi),
    }
)
K_UNITS = ("cycles/voxel", "rad/voxel", "cycles/FOV", *_PER_MM)
"""`cycles/voxel` (1/pixel) go from -0.5 to 0.5, `rad/voxel` from -pi to pi, `cycles/FOV` from -n/2 to n/2."""


def worth_cyc_per_mm(k_unit: str, spacing_mm: Triple, fov_mm: Triple) -> NDArray[np.float64]:
    """Return what one `k_unit` is worth in cycles/mm along each axis of a space of this voxel size and field of view.

    Raises:
        BadInputError: a unit that is not one of `K_UNITS`.
    """
    if k_unit not in K_UNITS:
        raise BadInputError(f"the unit of k must be one of {', '.join(K_UNITS)}, not {k_unit!r}")
    spacing, fov = np.array(spacing_mm), np.array(fov_mm)
    of_space = {"cycles/voxel": 1 / spacing, "rad/voxel": 1 / (2 * math.pi * spacing), "cycles/FOV": 1 / fov}
    return of_space[k_unit] if k_unit in of_space else np.full(3, _PER_MM[k_unit])


def band_filled(largest_cyc_per_mm: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    """Return the share of the Nyquist frequency that these coordinates (3,) reach; NaN along axes of one voxel."""
    filled: NDArray[np.float64] = 2 * largest_cyc_per_mm * np.array(grid.spacing_mm)
    return np.where([n > 1 for n in grid.shape], filled, np.nan)


def misfit(filled: NDArray[np.float64]) -> float:
    """Return how far axes are from being just filled: the mean distance of the logarithms, of the axes encoded."""
    told = filled[filled > 0]
    return float(np.abs(np.log(told)).mean()) if len(told) else math.inf


def fitting_units(largest: NDArray[np.float64], spacing_mm: Triple, fov_mm: Triple, grid: Grid) -> dict[str, float]:
    """Return the units, with their `misfit`, in which coordinates `largest` (3,), as stored, just fill the band.

    `spacing_mm` and `fov_mm` are those of the space that `cycles/voxel` and `cycles/FOV` speak of. Several units are
    returned where the extent does not tell them apart, as cycles/mm and cycles/voxel at voxels of 1 mm.
    """
    found = {}
    for unit in K_UNITS:
        filled = band_filled(largest * worth_cyc_per_mm(unit, spacing_mm, fov_mm), grid)
        if np.isfinite(misfit(filled)) and _LEAST_FILLED < np.nanmax(filled) <= BEYOND_NYQUIST:
            found[unit] = misfit(filled)
    least = min(found.values(), default=0.0)
    return {unit: far for unit, far in found.items() if far <= least + _AS_GOOD}
