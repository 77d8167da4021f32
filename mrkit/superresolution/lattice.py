"""The lattice of a fit: where it lies, what of it is not background, and cutting the result out of it."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from mrcore.data.grid import Grid, Shape3
from mrcore.data.volume import TissueMap, Volume
from mrcore.forward import covering_grid
from mrcore.spatial.resampling import resample
from ulfsim.source.window import touches_edge


def lattice_for(scan: Volume, voxel_mm: float) -> tuple[Grid, Grid]:
    """Return the fit's lattice and the output grid, which covers the scan's field of view.

    Where the object touches the edge of the field of view the lattice is wider by a scan voxel on every side: it is
    one period of the operator, and what lies at one edge must not appear at the opposite one.
    """
    width_mm = max(scan.grid.spacing_mm)
    margin_mm = math.ceil(width_mm / voxel_mm) * voxel_mm if touches_edge(scan, width_mm) else 0.0
    return covering_grid(scan.grid, voxel_mm, margin_mm), covering_grid(scan.grid, voxel_mm)


def foreground_of(image: Tensor, brain: Tensor, noise_sd: float, lattice: Grid) -> Tensor:
    """Return what of the lattice (X, Y, Z, bool) is object: the brain, and what stands clear of the noise, plus 3 mm.

    `image` has WM = 1. Holes (sinuses, air) belong to it.
    """
    clear = (image > max(6 * noise_sd, 0.1)).numpy()
    parts, _ = ndimage.label(clear | brain.numpy())
    sizes = np.bincount(parts.reshape(-1))
    sizes[0] = 0
    # Specks of noise and ghosts are not object; anything of a millilitre is.
    kept = np.isin(parts, np.flatnonzero(sizes * math.prod(lattice.spacing_mm) > 1000))
    radius = [max(1, round(3 / s)) for s in lattice.spacing_mm]
    grown = ndimage.maximum_filter(kept, size=cast("Shape3", tuple(2 * r + 1 for r in radius)))
    return torch.from_numpy(ndimage.binary_fill_holes(grown))


def on_scan(mask: Volume, scan: Volume) -> Tensor:
    """Return the voxels (bool) of the scan that lie in `mask` (1 inside, any grid) for nine tenths or more."""
    return resample(mask, scan.grid, order=1).data > 0.9


def on_lattice(tissues: TissueMap, lattice: Grid) -> TissueMap:
    """Interpolate tissue maps linearly; they sum to one inside the mask."""
    prob = torch.stack([resample(Volume(p, tissues.grid), lattice, order=1).data for p in tissues.prob])
    total = prob.sum(0)
    return TissueMap(torch.where(total > 0.5, prob / total.clamp_min(1e-6), 0.0), tissues.names, lattice)


def mask_tissues(tissues: TissueMap, mask: Tensor) -> TissueMap:
    """Return tissue maps with nothing outside `mask` (X, Y, Z, bool)."""
    return TissueMap(tissues.prob * mask, tissues.names, tissues.grid)
