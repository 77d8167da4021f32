"""Cutting a grid out of an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from mrcore.data.grid import Grid, to_voxel, to_world
from mrcore.data.volume import Volume


def crop_to(volume: Volume, grid: Grid) -> Volume:
    """Cut `grid` out of a lattice with the same voxels that contains it."""
    corner = to_voxel(volume.grid, to_world(grid, np.zeros(3)))
    start = [round(float(c)) for c in corner]
    window = tuple(slice(s, s + n) for s, n in zip(start, grid.shape, strict=True))
    return Volume(volume.data[window].clone(), grid, volume.meta)


def cut_box(layers: Tensor, centre: Sequence[int], sides: Sequence[int]) -> Tensor:
    """Return the box of `sides` voxels about the voxel `centre` of `layers` (C, X, Y, Z), 0 outside them."""
    low = [c - n // 2 for c, n in zip(centre, sides, strict=True)]
    inner = tuple(slice(max(0, a), max(0, a + n)) for a, n in zip(low, sides, strict=True))
    out = layers.new_zeros((len(layers), *sides))
    part = layers[(slice(None), *inner)]
    start = [max(0, -a) for a in low]
    out[(slice(None), *(slice(s, s + n) for s, n in zip(start, part.shape[1:], strict=True)))] = part
    return out
