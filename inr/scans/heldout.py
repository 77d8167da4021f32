"""Held-out voxels: scans of which some voxels are hidden from the fit, to test what it says of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from inr.scans.single import OneScan
from inr.scans.stacks import Stacks
from inr.voxels import cubic, tikhonov
from mrcore.data.grid import Grid, Shape3, Triple
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.operators.linop import LinearOp, real_dtype
from mrcore.operators.pointwise import DiagonalOp

N_FOLDS = 25
"""Disjoint folds of a scan; each holds 4 % of the voxels."""
_STRIDES = (1, 5, 7)
_STENCIL = ((-2, -1 / 6), (-1, 2 / 3), (1, 2 / 3), (2, -1 / 6))


@dataclass(frozen=True, eq=False)
class Split:
    """What a fit may see when the voxels `held_out` (bool, scan's shape) are hidden from it.

    `operator` and `scan` are 0 there, so that they say nothing of the object; in `filled` they are interpolated from
    their neighbours, for starts that interpolate. `seed` is the fit's.
    """

    operator: LinearOp
    scan: Tensor
    filled: Tensor
    held_out: Tensor
    seed: int


def held_out(shape: Shape3, fold: int) -> Tensor:
    """Return the voxels (bool) of one of N_FOLDS disjoint folds; along an axis four others lie between any two.

    Raises:
        BadInputError: a fold outside 0 to N_FOLDS - 1.
    """
    if not 0 <= fold < N_FOLDS:
        raise BadInputError(f"folds are 0 to {N_FOLDS - 1}, got {fold}")
    i, j, k = (np.arange(n) * s for n, s in zip(shape, _STRIDES, strict=True))
    place = i[:, None, None] + j[:, None] + k
    return torch.from_numpy(place % N_FOLDS == fold)


def filled(scan: Tensor, hidden: Tensor, spacing_mm: Triple) -> Tensor:
    """Return the scan with `hidden` voxels of a fold replaced by cubic interpolation of two neighbours on each side.

    It runs along the axes whose voxels are at most 1.5 times the smallest, and takes their mean; for a
    neighbour beyond a face that on the other side stands in.

    Raises:
        BadInputError: no such axis with 5 voxels or more.
    """
    axes = [a for a, s in enumerate(spacing_mm) if s <= 1.5 * min(spacing_mm) and scan.shape[a] > 4]
    if not axes:
        raise BadInputError(f"a scan of shape {tuple(scan.shape)} has no axis long enough to interpolate on")
    guess = torch.zeros_like(scan)
    for axis in axes:
        n = scan.shape[axis]
        for shift, weight in _STENCIL:
            here = torch.arange(n)
            index = torch.where((here + shift >= 0) & (here + shift < n), here + shift, here - shift)
            guess += weight / len(axes) * scan.index_select(axis, index.to(scan.device))
    return torch.where(hidden, guess, scan)


def split(operator: LinearOp, scan: Tensor, spacing_mm: Triple, fold: int, seed: int) -> Split:
    """Hide one fold of `scan` (the operator's range, real) from a fit."""
    shape = (scan.shape[0], scan.shape[1], scan.shape[2])
    hidden = held_out(shape, fold).to(scan.device)
    kept = (~hidden).to(real_dtype(operator.dtype))
    return Split(DiagonalOp(kept) @ operator, scan * kept, filled(scan, hidden, spacing_mm), hidden, seed)


@dataclass(frozen=True, eq=False)
class Part:
    """What a fit may see of one or more scans when a fold of each is hidden from it.

    `held_out` (bool) and `filled`, the scans with these voxels interpolated from their neighbours, are as the views of
    `data`: one a scan, relative to WM = 1. `seed` is the fit's.
    """

    data: OneScan | Stacks
    held_out: tuple[Tensor, ...]
    filled: tuple[Tensor, ...]
    seed: int


def hide(data: OneScan | Stacks, spacing_mm: Triple, fold: int, seed: int) -> Part:
    """Hide one fold of each scan from a fit; `spacing_mm` is that of one scan, stacks know theirs."""
    if isinstance(data, OneScan):
        seen = split(data.model, data.scan, spacing_mm, fold, seed)
        # A receive field that is known belongs to the operator; it is not found again from a part.
        part = OneScan(seen.scan, seen.operator, data.noise_sd, data.likelihood)
        return Part(part, (seen.held_out,), (seen.filled,), seed)
    hidden = [held_out(stack.scan.grid.shape, fold).to(stack.scan.data.device) for stack in data.stacks]
    known = [filled(s.scan.data, h, s.scan.grid.spacing_mm) for s, h in zip(data.stacks, hidden, strict=True)]
    stacks = tuple(
        replace(stack, scan=Volume(values, stack.scan.grid), hidden=h if stack.hidden is None else h | stack.hidden)
        for stack, values, h in zip(data.stacks, known, hidden, strict=True)
    )
    relative = tuple(values / stack.scale for values, stack in zip(known, data.stacks, strict=True))
    return Part(replace(data, stacks=stacks), tuple(hidden), relative, seed)


def smooth_start(seen: Split, scan_grid: Grid, lattice: Grid, noise_sd: float) -> Tensor:
    """Return the Tikhonov image (X, Y, Z) of what is seen, on the operator's `lattice`, from cubic interpolation."""
    begin = cubic(Volume(seen.filled.cpu(), scan_grid), lattice).data.to(seen.scan)
    return tikhonov(seen.operator, seen.scan, noise_sd, begin, lattice.spacing_mm).x.clamp_min(0)
