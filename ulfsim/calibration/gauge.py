"""What a calibration leaves open: the direction that contrasts do not see, bounds, sensitivity, contrast made up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrcore.errors import BadInputError
from mrcore.notes import Caution
from ulfsim.measurement.contrast import pairs

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Problem:
    """A contrast problem: `matrix` (regions, tissues) gives the mean per region of gains within [lower, upper].

    `noise_sd` is that of the scan per real channel; `gauge` and `scale` say what fixed the free direction and the
    intensities.
    """

    names: tuple[str, ...]
    matrix: Array
    upper: float
    noise_sd: float
    gauge: str
    scale: str
    lower: Array | float = 0.0


def differences(names: tuple[str, ...]) -> Array:
    """Return the matrix (pairs, tissues) that takes tissue signals to their differences."""
    out = np.zeros((len(pairs(names)), len(names)))
    for row, (a, b) in zip(out, pairs(names), strict=True):
        row[names.index(a)], row[names.index(b)] = 1.0, -1.0
    return out


def null_vector(problem: Problem) -> Array:
    """Return n with matrix n = noise_sd in every region: it adds 1 to each SNR and changes no contrast."""
    check_determined(problem.matrix)
    return np.linalg.solve(problem.matrix, np.full(len(problem.names), problem.noise_sd))


def check_determined(matrix: Array) -> None:
    """Refuse a response (regions, tissues) that is empty or in which tissues cannot be told apart.

    Raises:
        BadInputError: either.
    """
    if not np.abs(matrix).max() > 0:
        raise BadInputError("the tissues have no signal in this image; check the image and its tissue maps")
    if np.linalg.cond(matrix) > 1e6:
        raise BadInputError("the tissues' regions do not tell the tissues apart; check the segmentation")


def feasible_interval(gains: Array, null: Array, upper: float, lower: Array | float = 0.0) -> tuple[float, float]:
    """Return the interval of t for which lower <= gains + t null <= upper."""
    used = np.abs(null) > 1e-15
    ends = np.stack([(lower - gains)[used] / null[used], (upper - gains[used]) / null[used]])
    return float(ends.min(0).max()), float(ends.max(0).min())


def on_bound(gains: Array, upper: float, lower: Array | float = 0.0) -> NDArray[np.bool_]:
    """Return which gains lie on `lower` or `upper`."""
    tolerance = 1e-6 * upper
    return (gains <= lower + tolerance) | (gains >= upper - tolerance)


def active_bounds(problem: Problem, gains: Array) -> tuple[str, ...]:
    """Name the gains that lie on a bound."""
    at = on_bound(gains, problem.upper, problem.lower)
    return tuple(f"{name} = {gain:.4g}" for name, gain, active in zip(problem.names, gains, at, strict=True) if active)


def sensitivity(rows: Array, effect: Array, free: NDArray[np.bool_], bounds: Array | float = 0.0) -> Array:
    """Return d x / d target (unknowns, targets) for the x of least |rows x - effect target|^2.

    The unknowns that are not `free` stay on their bounds, and move as these do: by `bounds` (unknowns, targets).
    """
    out = np.zeros((rows.shape[1], effect.shape[1]))
    out[~free] = np.broadcast_to(bounds, out.shape)[~free]
    out[free] = np.linalg.pinv(rows[:, free]) @ (effect - rows @ out)
    return out


def contrast_warnings(names: tuple[str, ...], predicted: Array, source: Array, *, reorders: bool = False) -> list[str]:
    """Say where a scan of tissue means `predicted` has more contrast than its source, or the opposite one.

    Either is information that the source does not hold; with `reorders` the opposite one is meant, and was said.
    """
    index = {name: i for i, name in enumerate(names)}
    out: list[str] = []
    for a, b in pairs(names):
        new, old = (_michelson(v[index[a]], v[index[b]]) for v in (predicted, source))
        if new * old < 0:
            warning = f"{a}-{b} contrast is reversed: {new:+.3f} against {old:+.3f} in the source; borders are not real"
            out += [Caution(warning, rank=0)] * (not reorders)
        elif abs(new) > abs(old) * 1.01 + 1e-6:
            more = f" ({100 * (new / old - 1):+.0f} %)" if old else ""
            out.append(Caution(f"{a}-{b} contrast (Michelson) {new:.3f} exceeds the source's {old:.3f}{more}"))
    return out


def _michelson(a: float, b: float) -> float:
    return float((a - b) / (a + b)) if a + b else 0.0
