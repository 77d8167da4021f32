"""The band that a scan fills: how far it was interpolated, and the scan on the voxels that were acquired.

A console that interpolates (zero-filling, splines) leaves the band beyond that of the acquired matrix all but empty,
whatever the object; noise that was acquired fills it. Between its voxels such a scan holds nothing, its noise looks
smaller in differences of neighbours than it is, and every voxel counts several times.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from mrcore.data.acquisition import AxisPsf
from mrcore.data.grid import Shape3, Triple, directions, to_world
from mrcore.data.volume import Volume
from mrcore.forward import grid_centred, imaging_operator

INTERPOLATED = 1.4
"""Acquired voxel over the voxel of the file from which an axis counts as interpolated: soft borders make up to 1.3."""
_FILLED = 0.98
_FEWEST_VOXELS = 16


def acquired_voxel_mm(volume: Volume, mask: Tensor) -> Triple:
    """Return the voxel size that the band of `volume` (real or complex) asks for along each axis; at least its own.

    It is 1 / (2 k), k the frequency up to which the differences of neighbours in `mask` (X, Y, Z, bool) hold 98 % of
    their power. Differences make the spectrum of tissue borders flat, and that of white noise rise, so that only an
    empty band is taken for one. Axes of less than 1.4 times the file's voxel, and those of fewer than 16 voxels in the
    mask, keep theirs.
    """
    box = _box_of(mask)
    mask = mask[box]
    data, window = volume.data[box].abs().double(), _smooth_window(mask)
    if not float(window.sum()) > 0:
        return volume.grid.spacing_mm
    level = float((data * window).sum() / window.sum())
    seen = (data - level) * window
    return cast(
        "Triple",
        tuple(s * _voxels_per_sample(seen, axis) for axis, s in enumerate(volume.grid.spacing_mm)),
    )


def is_interpolated(volume: Volume, voxel_mm: Triple) -> bool:
    """Return whether `voxel_mm`, acquired along each axis, is larger than that of the file on any."""
    return any(a > 1.001 * s for a, s in zip(voxel_mm, volume.grid.spacing_mm, strict=True))


def on_acquired_voxels(volume: Volume, voxel_mm: Triple) -> Volume:
    """Return the magnitude of `volume` on voxels of at most `voxel_mm` in the same field of view.

    Nothing of the band that these voxels hold is lost.
    """
    grid = volume.grid
    shape = cast(
        "Shape3",
        tuple(
            min(n, math.ceil(n * s / a - 1e-3)) for n, s, a in zip(grid.shape, grid.spacing_mm, voxel_mm, strict=True)
        ),
    )
    if shape == grid.shape:
        return volume
    spacing = cast("Triple", tuple(f / n for f, n in zip(grid.fov_mm, shape, strict=True)))
    coarse = grid_centred(to_world(grid, (np.array(grid.shape) - 1) / 2), directions(grid), spacing, shape)
    data = imaging_operator(grid, coarse, (AxisPsf(),) * 3)(volume.data.abs().float())
    return Volume(data.clamp_min(0), coarse, volume.meta)


def _box_of(mask: Tensor) -> tuple[slice, slice, slice]:
    """Return the box of the mask; empty where the mask is."""
    at = mask.nonzero()
    if not len(at):
        return (slice(0),) * 3
    x, y, z = (slice(a, b + 1) for a, b in zip(at.amin(0).tolist(), at.amax(0).tolist(), strict=True))
    return x, y, z


def _smooth_window(mask: Tensor) -> Tensor:
    """Return a weight (X, Y, Z) that falls softly to 0 at the border of the mask, where software may have cut."""
    inner = mask.double().numpy()
    size = [7 if n >= _FEWEST_VOXELS else 1 for n in mask.shape]
    for _ in range(3):
        inner = ndimage.uniform_filter(inner, size, mode="constant")
    return torch.from_numpy(2 * inner - 1).clamp_min(0).square()


def _voxels_per_sample(seen: Tensor, axis: int) -> float:
    n = seen.shape[axis]
    if n < _FEWEST_VOXELS:
        return 1.0
    others = [a for a in range(3) if a != axis]
    power = torch.fft.rfft(seen, n=2 * n, dim=axis).abs().square().sum(others).numpy()
    k = np.arange(len(power)) / (2 * n)
    power = power * np.sin(math.pi * k) ** 2
    total = power.cumsum()
    if not total[-1] > 0:
        return 1.0
    edge = float(np.interp(_FILLED, total / total[-1], k))
    found = 0.5 / max(edge, 0.5 / n)
    return found if found > INTERPOLATED else 1.0
