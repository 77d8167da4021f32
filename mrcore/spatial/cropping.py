"""Cutting a grid out of an image."""

from __future__ import annotations

import numpy as np

from mrcore.data.grid import Grid, to_voxel, to_world
from mrcore.data.volume import Volume


def crop_to(volume: Volume, grid: Grid) -> Volume:
    """Cut `grid` out of a lattice with the same voxels that contains it."""
    corner = to_voxel(volume.grid, to_world(grid, np.zeros(3)))
    start = [round(float(c)) for c in corner]
    window = tuple(slice(s, s + n) for s, n in zip(start, grid.shape, strict=True))
    return Volume(volume.data[window].clone(), grid, volume.meta)
