"""Search for the Gaussian widths along three axes that give a measured width on each."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
from numpy.typing import NDArray

from mrcore.data.grid import Triple


def match_widths(
    spread: Callable[[Triple], Triple],
    wanted_mm: Triple,
    start_mm: Triple,
    limit_mm: Triple,
    *,
    tolerance: float = 0.03,
    n_most: int = 8,
) -> tuple[Triple, Triple]:
    """Return the Gaussian FWHM per axis for which `spread` gives `wanted_mm`, and what it then gives.

    Each axis is searched in its own bracket, [0, limit], all with the same evaluations. Variances add,
    spread^2 = rest^2 + g width^2: the next width follows from both ends of the bracket, or with g = 1 from one. An
    axis whose spread at 0 is above what is wanted ends at 0; one without a spread (NaN) stays where it started.
    """
    wanted, width = np.square(wanted_mm), np.square(np.array(start_mm, np.float64))  # all squared from here on
    limit = np.square(np.array(limit_mm, np.float64))
    low, high = np.zeros(3), limit.copy()
    at_low, at_high = np.full(3, np.nan), np.full(3, np.nan)
    best, found = width.copy(), np.full(3, np.nan)
    for _ in range(n_most):
        seen = np.square(spread(_rooted(width)))
        known = np.isfinite(seen) & np.isfinite(wanted)
        better = known & ~(np.abs(seen - wanted) >= np.abs(found - wanted))
        best, found = np.where(better, width, best), np.where(better, seen, found)
        below, above = known & (seen < wanted), known & (seen >= wanted)
        low, at_low = np.where(below, width, low), np.where(below, seen, at_low)
        high, at_high = np.where(above, width, high), np.where(above, seen, at_high)
        settled = ~known | (np.abs(np.sqrt(found / wanted) - 1) < tolerance) | (high <= 0) | (low >= limit)
        if settled.all():
            break
        slope = (at_high - at_low) / np.where(high > low, high - low, 1.0)
        step = np.where(np.isfinite(slope) & (slope > 0), low + (wanted - at_low) / slope, width + wanted - seen)
        # Only an end of the range that was not looked at may be a step's goal; else a bracket is cut in its inside.
        margin = 0.05 * (high - low)
        first = np.where(np.isfinite(at_low), low + margin, 0.0)
        last = np.where(np.isfinite(at_high), high - margin, limit)
        width = np.where(settled, best, np.clip(np.where(known, step, width), first, last))
    return _rooted(best), _rooted(found)


def _rooted(squares: NDArray[np.float64]) -> Triple:
    return cast("Triple", tuple(np.sqrt(squares).tolist()))
