"""The network in tiles, exactly: halos from true neighbours, attention over the whole block, memory bounded.

The cross-batch mechanism of patch-based diffusion (DiffusionIQT, arXiv:2311.06631) exchanges halos before each
convolution so that the patches of a block are one image to the network. The same follows from running each stage tile
by tile with a halo as wide as its convolutions reach: inside, the halo is the neighbour's own; at the border of the
volume there is none, and convolutions pad there as they do on the whole. No norm runs over positions, and attention
sees the coarsest map of the whole block, which is small. Tiled equals whole up to rounding, wherever tiles begin.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as functional
from torch import Tensor

from iqt.model.folding import fold, unfold
from iqt.model.unet import FoldedUNet, run_blocks
from mrcore.data.grid import Shape3
from mrcore.errors import BadInputError

Stage = Callable[[Tensor], Tensor]


def forward_in_tiles(
    net: FoldedUNet,
    images: Tensor,
    conditions: Tensor,
    time: Tensor | None = None,
    *,
    tile: Shape3 = (32, 32, 16),
    origin: Shape3 = (0, 0, 0),
) -> Tensor:
    """Return `net(images, conditions, time)`, computing convolutions on tiles of at most `tile` folded positions.

    The maps between stages are whole: at 1 mm, (40 + 80 / 4 + 128 / 32) channels at a twentieth of the voxels. `origin`
    is where the first tile ends, which changes nothing but rounding.

    Raises:
        BadInputError: tiles below 1 position, an origin outside the first tile.
    """
    if min(tile) < 1 or not all(0 <= o < t for o, t in zip(origin, tile, strict=True)):
        raise BadInputError(f"tiles have at least one position and an origin inside the first, got {tile} and {origin}")
    shifts = net.shifts(time)

    def tiled(stage: Stage, x: Tensor, n_convolutions: int) -> Tensor:
        return _tiled(stage, x, n_convolutions, tile, origin)

    def blocks(level: int, x: Tensor, *, up: bool) -> Tensor:
        part = net.decoder[level] if up else net.encoder[level]
        return tiled(lambda p: run_blocks(part, p, shifts[level]), x, 2 * len(list(part.children())))

    fine = tiled(lambda p: net.enter(p, conditions), fold(images, net.settings.fold), 1)
    fine = blocks(0, fine, up=False)
    middle = blocks(1, net.down[0](fine), up=False)
    coarse = net.attend(blocks(2, net.down[1](middle), up=False))
    middle = blocks(1, middle + net.up[1](coarse), up=True)
    fine = blocks(0, fine + net.up[0](middle), up=True)
    return unfold(tiled(lambda p: net.head(functional.relu(p)), fine, 1), net.settings.fold)[:, 0]


def _tiled(stage: Stage, x: Tensor, halo: int, tile: Shape3, origin: Shape3) -> Tensor:
    """Return `stage(x)` for a stage that keeps positions and reaches `halo` of them; x is (B, C, X, Y, Z)."""
    sizes = x.shape[2:]
    starts = [sorted({0, *range(o or t, n, t)}) for n, t, o in zip(sizes, tile, origin, strict=True)]
    out: Tensor | None = None
    for corner in itertools.product(*starts):
        ends = [min([s for s in line if s > c] or [n]) for c, line, n in zip(corner, starts, sizes, strict=True)]
        low = [max(0, c - halo) for c in corner]
        high = [min(n, e + halo) for e, n in zip(ends, sizes, strict=True)]
        seen = x[(slice(None), slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))]
        done = stage(seen.contiguous(memory_format=torch.channels_last_3d))
        if out is None:
            shape = (x.shape[0], done.shape[1], *sizes)
            out = done.new_empty(shape).contiguous(memory_format=torch.channels_last_3d)
        inner = tuple(slice(c - a, e - a) for c, e, a in zip(corner, ends, low, strict=True))
        at = tuple(slice(c, e) for c, e in zip(corner, ends, strict=True))
        out[(slice(None), slice(None), *at)] = done[(slice(None), slice(None), *inner)]
    if out is None:
        raise BadInputError(f"an image without voxels, {tuple(sizes)}, has no tiles")
    return out
