"""Exact bounded least squares with few unknowns, for one problem or a batch."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrcore.errors import BadInputError

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
_MOST = 5


def solve_bounded(rows: ArrayLike, right: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> Array:
    """Return x (..., n) with the least |rows x - right|^2 within lower <= x <= upper.

    `rows` is (..., m, n) of full column rank, n <= 5, and `right` (..., m); the bounds, which may be infinite,
    broadcast to (..., n). The minimum of a convex problem has some unknowns on a bound and the others where they
    minimise freely. All 3^n points of that kind are looked at; the best that keeps the bounds is exact.

    Raises:
        BadInputError: dependent columns, too many unknowns, or a lower bound above its upper one.
    """
    a, b = np.asarray(rows, np.float64), np.asarray(right, np.float64)
    if not a.shape[-1] <= min(_MOST, a.shape[-2]):
        raise BadInputError(f"1 to {_MOST} unknowns and as many rows are needed, got rows of shape {a.shape}")
    size = np.sqrt((a * a).sum(-2))
    if not np.all(size > 0):
        raise BadInputError("a column of the least squares is 0 or not a number: that unknown has no effect")
    # Columns of length 1, so that units do not matter to rounding.
    a, low, high = a / size[..., None, :], np.asarray(lower) * size, np.asarray(upper) * size
    if not np.all(low <= high):
        raise BadInputError("a lower bound lies above its upper one; give lower <= upper")
    try:
        x = _free(a, b)
        outside = ((x < low) | (x > high)).any(-1)
        if outside.any():
            lead = outside.shape
            parts = [
                np.broadcast_to(v, (*lead, *v.shape[-k:]))[outside] for v, k in ((a, 2), (b, 1), (low, 1), (high, 1))
            ]
            x[outside] = _best(*parts)
    except np.linalg.LinAlgError:
        raise BadInputError("columns of the least squares depend on one another: nothing tells them apart") from None
    if not np.isfinite(x).all():
        raise BadInputError("the least squares holds values that are not finite; check its rows and right side")
    out: Array = np.clip(x / size, lower, upper)
    return out


def _free(a: Array, b: Array) -> Array:
    """Return the least squares without bounds; the second step undoes the rounding of the normal equations."""
    across = a.swapaxes(-1, -2)
    inverse = np.linalg.inv(across @ a) @ across
    x = inverse @ b[..., None]
    out: Array = (x + inverse @ (b[..., None] - a @ x))[..., 0]
    return out


def _best(a: Array, b: Array, low: Array, high: Array) -> Array:
    """Return the best of the 3^n points (N, n) that keeps its bounds, for rows (N, m, n)."""
    free, at_low, subset, subsets = _states(a.shape[-1])
    bound = np.where(at_low, low[:, None], high[:, None])
    usable = (free | np.isfinite(bound)).all(-1)
    bound = np.where(free | ~np.isfinite(bound), 0.0, bound)
    # One inverse for each choice of free unknowns; a fixed one has no column, and the row of the identity.
    columns = np.where(subsets[:, None, :], a[:, None], 0.0)
    across = columns.swapaxes(-1, -2)
    inverse = np.linalg.inv(across @ columns + np.eye(a.shape[-1]) * ~subsets[:, None, :]) @ across
    alone, taken = inverse @ b[:, None, :, None], inverse @ a[:, None]
    x = bound + alone[..., 0][:, subset] - np.einsum("nsij,nsj->nsi", taken[:, subset], bound)
    usable &= ((x >= low[:, None]) & (x <= high[:, None])).all(-1)
    cost = np.where(usable, np.square(b[:, None] - x @ a.swapaxes(-1, -2)).sum(-1), np.inf)
    each, chosen = np.arange(len(x)), cost.argmin(-1)
    found = x[each, chosen]
    left = b[..., None] - a @ found[..., None]
    out: Array = found + (inverse[each, subset[chosen]] @ left)[..., 0]
    return out


@cache
def _states(n: int) -> tuple[Mask, Mask, NDArray[np.intp], Mask]:
    """Return which unknowns are free in each of the 3^n states, which are low, and the states' sets among all 2^n."""
    states = np.array(list(itertools.product((0, 1, 2), repeat=n)))
    free = states == 0
    return free, states == 1, (free * 2 ** np.arange(n)).sum(-1), np.arange(2**n)[:, None] >> np.arange(n) & 1 == 1
