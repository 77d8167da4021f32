"""Windows of a lattice: work where the tissues are, and not on the air around them."""

from __future__ import annotations

import itertools
from typing import cast

import numpy as np
import torch
from torch import Tensor

from mrcore.data.grid import Shape3, Triple, cropped, to_voxel, to_world
from mrcore.data.volume import TissueMap, Volume
from mrcore.operators.indexing import PermuteOp
from mrcore.operators.linop import LinearOp
from mrcore.operators.separable import SeparableOp
from ulfsim.plan import ScanPlan

Window = tuple[slice, slice, slice]
"""Integer start and stop along each of the three axes."""


def bounding_box(prob: Tensor) -> Window:
    """Return the smallest window that holds every positive value of (T, X, Y, Z); the whole where there is none."""
    columns = prob.amax((0, 3)) > 0  # along memory, and once over everything; the rest is small
    x, y = _range(columns.any(1)), _range(columns.any(0))
    return x, y, _range(prob[:, x, y].amax(0).flatten(0, 1).amax(0) > 0)


def _range(found: Tensor) -> slice:
    at = torch.nonzero(found)
    return slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, len(found))


def inner_tissues(tissues: TissueMap, window: Window) -> TissueMap:
    """Cut `window` out of tissue maps."""
    prob = tissues.prob[(slice(None), *window)].contiguous()
    start = cast("Shape3", tuple(w.start for w in window))
    return TissueMap(prob, tissues.names, cropped(tissues.grid, start, cast("Shape3", tuple(prob.shape[1:]))))


def seen_window(plan: ScanPlan, window: Window) -> Window:
    """Return the part of the scan that lies over `window` of the object, and a voxel more on each side."""
    corners = np.array(list(itertools.product(*((w.start - 0.5, w.stop - 0.5) for w in window))))
    at = to_voxel(plan.scan_grid, to_world(plan.object_grid, corners))
    low, high = np.floor(at.min(0)) - 1, np.ceil(at.max(0)) + 2
    ends = (slice(max(0, int(a)), min(n, int(b))) for a, b, n in zip(low, high, plan.scan_grid.shape, strict=True))
    return cast("Window", tuple(ends))


def through_window(operator: LinearOp, part: Tensor, window: Window, seen: Window | None = None) -> Tensor:
    """Return `operator` applied to objects (..., X, Y, Z) that are `part` (..., x, y, z) on `window` and 0 elsewhere.

    Only the voxels `seen` of the scan are computed. A Kronecker product is cut to the columns of the window and the
    rows that are seen, which changes nothing but the rounding; any other operator gets the whole object.
    """
    found = _separable(operator)
    if found is None:
        image = part.new_zeros((*part.shape[:-3], *operator.shape_in))
        image[(..., *window)] = part
        scanned = operator(image)
        return scanned if seen is None else scanned[(..., *seen)]
    separable, axes = found
    rows = [slice(None)] * 3 if seen is None else [seen[axes.index(a)] for a in range(3)]
    a, b, c = (m[r, w].contiguous() for m, r, w in zip(separable.matrices, rows, window, strict=True))
    small = SeparableOp((a, b, c))
    scanned = small(part)
    return scanned if axes == (0, 1, 2) else PermuteOp(small.shape_out, axes, small.dtype, small.device)(scanned)


def true_voxels(mask: Tensor) -> Tensor:
    """Return the places (N) of the true voxels of a mask in memory order; on the CPU numpy's search is the faster."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return torch.nonzero(mask.reshape(-1)).squeeze(1)


def touches_edge(volume: Volume, width_mm: float | Triple) -> bool:
    """Whether the object comes within `width_mm` (one width, or one per voxel axis) of a face of the lattice.

    It does where the mean of a shell of that width is above 2 % of the maximum. Means, not maxima: the air of a scan
    is never without a bright voxel.
    """
    widths = (width_mm,) * 3 if isinstance(width_mm, int | float) else width_mm
    brightest = 0.0
    for axis, (n, spacing, wide) in enumerate(zip(volume.grid.shape, volume.grid.spacing_mm, widths, strict=True)):
        width = min(n, max(1, round(wide / spacing)))
        shells = (volume.data.narrow(axis, start, width) for start in (0, n - width))
        brightest = max(brightest, *(float(shell.mean()) for shell in shells))
    # Mostly a few voxels are bright enough to tell.
    return not any(brightest <= 0.02 * float(part.max()) for part in (volume.data[::4, ::4, ::4], volume.data))


def _separable(operator: LinearOp) -> tuple[SeparableOp, tuple[int, int, int]] | None:
    """Return the Kronecker product that an operator is, and the order its axes are put in after it."""
    if isinstance(operator, SeparableOp):
        return operator, (0, 1, 2)
    outer, inner = getattr(operator, "outer", None), getattr(operator, "inner", None)
    if isinstance(outer, PermuteOp) and isinstance(inner, SeparableOp):
        return inner, outer.axes
    return None
