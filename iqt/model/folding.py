"""Voxels folded into channels, so that a network works on the grid of the scan and not on that of the object."""

from __future__ import annotations

import math

from torch import Tensor

from mrcore.data.grid import Shape3
from mrcore.errors import BadInputError


def fold(images: Tensor, by: Shape3) -> Tensor:
    """Return (B, C, X, Y, Z) as (B, C * a * b * c, X / a, Y / b, Z / c), where `by` is (a, b, c).

    Raises:
        BadInputError: sizes that are no multiples of `by`.
    """
    n, channels, *sizes = images.shape
    if any(size % f for size, f in zip(sizes, by, strict=True)):
        raise BadInputError(f"sizes must be multiples of {by} to be folded, got {tuple(sizes)}")
    x, y, z = (size // f for size, f in zip(sizes, by, strict=True))
    a, b, c = by
    parts = images.reshape(n, channels, x, a, y, b, z, c).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return parts.reshape(n, channels * a * b * c, x, y, z)


def unfold(folded: Tensor, by: Shape3) -> Tensor:
    """Undo `fold`."""
    n, channels, x, y, z = folded.shape
    a, b, c = by
    parts = folded.reshape(n, channels // math.prod(by), a, b, c, x, y, z).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return parts.reshape(n, -1, x * a, y * b, z * c)
