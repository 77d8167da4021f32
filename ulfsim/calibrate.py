"""Calibration: one gain per tissue so that the simulated scan, measured again, has the target SNRs.

A scan's mean in region r is linear in the gains m: A_r = sum_t B[r, t] m_t, B[r, t] = mean over r of D(I q_t), with
image I, shares q of its signal per tissue and imaging operator D. Contrasts alone (differences of A) leave one
direction free, the null vector n with B n = 1: it adds the same SNR to every tissue. So each calibration states its
gauge, what fixed that direction, and reports how far the bounds would let one go along it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from mrcore.errors import BadInputError
from mrcore.volume import require_same_grid
from ulfsim.measure import pairs
from ulfsim.plan import ScanPlan
from ulfsim.response import response
from ulfsim.source import Source

Array = NDArray[np.float64]

ABSOLUTE = "absolute SNR of every tissue"
NEAREST = "contrasts, gains nearest to a prior"
CONTRAST_ONLY = "contrasts only, smallest gains (published method)"


@dataclass(frozen=True)
class Calibration:
    """Gains and noise of a simulation, and how well determined they are.

    Attributes:
        gains: factor per tissue on the source image, in [0, upper].
        background_gain: factor outside all tissues.
        noise_sd: noise per real channel of the simulated scan, in units of the source image.
        gauge: what fixed the direction that contrasts leave free.
        target: SNR per tissue that was asked for (empty where only contrasts were).
        predicted: SNR per tissue that these gains give in the noise-free scan.
        null_vector: change of the gains that adds 1 to every SNR and changes no contrast.
        feasible_interval: multiples of `null_vector` that may be added within the bounds.
        active_bounds: gains that lie on a bound.
        scale: how the noise, and with it the intensity scale, was chosen.
        warnings: what a reader of the result must know.
    """

    gains: Mapping[str, float]
    background_gain: float
    noise_sd: float
    gauge: str
    target: Mapping[str, float]
    predicted: Mapping[str, float]
    null_vector: Mapping[str, float]
    feasible_interval: tuple[float, float]
    active_bounds: tuple[str, ...]
    scale: str
    warnings: tuple[str, ...]

    @property
    def misses_target(self) -> bool:
        """Whether a predicted SNR is more than 1 % off its target."""
        return any(abs(self.predicted[name] / value - 1) > 0.01 for name, value in self.target.items())


def calibrate(
    source: Source,
    plan: ScanPlan,
    target_snr: Mapping[str, float],
    *,
    noise_sd: float | None = None,
    prior: Mapping[str, float] | None = None,
    upper: float = 1.0,
    measured: tuple[Array, tuple[str, ...]] | None = None,
) -> Calibration:
    """Find gains in [0, upper] that give the scan of `source` the SNRs of `target_snr` (tissue -> SNR).

    By default the absolute SNRs decide; with `prior` (tissue -> gain, such as Bloch ratios) only the differences of
    the SNRs do, and among the gains that reach them those nearest to the prior are taken.

    `noise_sd` (per real channel, units of the source) sets the intensity scale: give the noise of the source, and the
    scan stays in its units as in the published method. Without it the noise is chosen so that the largest gain is
    `upper`: the scan then has the intensities of the source, which is right for averaged or filtered sources.
    Only the ratio of signal and noise means anything, so the two differ by one factor.

    Outside all tissues (skull, scalp) the gain is that of the last tissue, WM. `measured` is
    `response(source, plan)` where it is known already.

    Raises:
        GridMismatchError: source and plan that do not share a grid.
        BadInputError: targets that do not name the tissues or are not positive; tissues without signal.
    """
    require_same_grid(source.volume.grid, plan.object_grid, "the image and the object of the scan plan")
    names = source.names
    for what, given in (("target_snr", target_snr), ("prior", prior)):
        if given is not None and (sorted(given) != sorted(names) or min(given.values()) <= 0):
            raise BadInputError(f"{what} needs a positive number for each of {list(names)}, got {dict(given)}")
    if upper <= 0 or (noise_sd is not None and noise_sd <= 0):
        raise BadInputError(f"upper and noise_sd must be positive, got {upper} and {noise_sd}")
    matrix, notes = measured or response(source, plan)
    target = np.array([target_snr[name] for name in names])
    start = None if prior is None else np.array([prior[name] for name in names])
    scale = "units of the source, whose noise sd was given"
    if noise_sd is None:
        noise_sd = upper / float(_solve(matrix, target, start, np.inf).max())
        scale = f"intensities of the source: the largest gain is {upper:g}"
    problem = _Problem(names, matrix, upper, noise_sd, ABSOLUTE if start is None else NEAREST, scale)
    gains = _solve(matrix, target, start, upper / noise_sd) * noise_sd
    warnings = (*notes, *_contrast_warnings(problem, gains, np.array(source.levels)))
    return _result(problem, gains, target, warnings)


def calibrate_contrasts_only(
    source_snr: Mapping[str, float],
    target_contrast: tuple[float, float, float],
    *,
    source_noise_sd: float = 1.0,
    upper: float = 1.0,
    epsilon: float = 1e-6,
) -> Calibration:
    """Find gains from contrasts alone, as published: min 0.5 |S m - c|^2 + epsilon |m|^2, 0 <= m <= upper.

    For comparison only. c holds the SNR differences (WM-GM, WM-CSF, GM-CSF) of the target and
    S = [[s_W, -s_G, 0], [s_W, 0, -s_C], [0, s_G, -s_C]] the SNRs of the source. S has rank 2 for any SNRs (row 2 is
    row 1 + row 3), so c fixes the gains only up to multiples of (1/s_W, 1/s_G, 1/s_C); epsilon then picks the
    smallest, not the right, gains. Source: Indrakanti & Simpson 2025, arXiv:2511.14897 (which runs a general
    constrained solver from 64 starts; the problem is a convex bounded least squares, solved here as such).

    Raises:
        BadInputError: SNRs that do not name WM, GM and CSF or are not positive.
    """
    names = ("CSF", "GM", "WM")
    if sorted(source_snr) != sorted(names) or min(source_snr.values()) <= 0 or min(upper, source_noise_sd) <= 0:
        raise BadInputError(f"positive SNRs of {list(names)}, upper and noise are needed, got {dict(source_snr)}")
    matrix = np.diag([source_snr[name] for name in names]) * source_noise_sd
    rows = _differences(names) @ matrix / source_noise_sd
    damped = np.vstack([rows, np.sqrt(2 * epsilon) * np.eye(3)])
    gains = _bounded(damped, np.r_[np.array(target_contrast, np.float64), np.zeros(3)], upper)
    problem = _Problem(names, matrix, upper, source_noise_sd, CONTRAST_ONLY, "units of the source")
    return _result(problem, gains, None, tuple(_contrast_warnings(problem, gains, matrix.diagonal())))


def contrast_matrix(source_snr: tuple[float, float, float]) -> Array:
    """Return S (3, 3) of the published method for the SNRs (s_W, s_G, s_C) of a source; its rank is 2."""
    white, grey, fluid = source_snr
    return np.array([[white, -grey, 0.0], [white, 0.0, -fluid], [0.0, grey, -fluid]])


@dataclass(frozen=True)
class _Problem:
    names: tuple[str, ...]
    matrix: Array
    upper: float
    noise_sd: float
    gauge: str
    scale: str


def _differences(names: tuple[str, ...]) -> Array:
    """Return the matrix (pairs, tissues) that takes tissue signals to their differences."""
    out = np.zeros((len(pairs(names)), len(names)))
    for row, (a, b) in zip(out, pairs(names), strict=True):
        row[names.index(a)], row[names.index(b)] = 1.0, -1.0
    return out


def _solve(matrix: Array, target: Array, prior: Array | None, upper: float) -> Array:
    """Return gains for unit noise: contrasts with absolute rows, or contrasts with a weak pull to the prior's ray."""
    n = len(target)
    names = tuple(str(i) for i in range(n))
    differences = _differences(names)
    if prior is None:
        return _bounded(np.vstack([differences @ matrix, matrix]), np.r_[differences @ target, target], upper)
    # Bloch ratios know no common factor, so that factor is one more unknown (last column). The weight is far below
    # the contrasts' rows and far above rounding.
    weight = 1e-4 * np.abs(matrix).max()
    rows = np.block(
        [
            [differences @ matrix, np.zeros((len(differences), 1))],
            [weight * np.eye(n), -weight * prior[:, None] / np.linalg.norm(prior)],
        ]
    )
    out: Array = _bounded(rows, np.r_[differences @ target, np.zeros(n)], np.r_[np.full(n, upper), np.inf])[:n]
    return out


def _bounded(rows: Array, right: Array, upper: float | Array) -> Array:
    scale = float(np.abs(rows).max())
    if not scale > 0:
        raise BadInputError("the tissues have no signal in this image; check the image and its tissue maps")
    found = lsq_linear(rows / scale, right / scale, bounds=(0, upper), method="bvls", tol=1e-14)
    out: Array = np.asarray(found.x, np.float64)
    return out


def _null_vector(problem: _Problem) -> Array:
    """Return n with B n = noise_sd in every region: it adds 1 to each SNR."""
    if np.linalg.cond(problem.matrix) > 1e6:
        raise BadInputError("the tissues' regions do not tell the tissues apart; check the segmentation")
    return np.linalg.solve(problem.matrix, np.full(len(problem.names), problem.noise_sd))


def _result(problem: _Problem, gains: Array, target: Array | None, warnings: tuple[str, ...]) -> Calibration:
    names, null = problem.names, _null_vector(problem)
    predicted = problem.matrix @ gains / problem.noise_sd
    out = Calibration(
        gains=_named(names, gains),
        background_gain=float(gains[-1]),
        noise_sd=float(problem.noise_sd),
        gauge=problem.gauge,
        target=_named(names, target) if target is not None else MappingProxyType({}),
        predicted=_named(names, predicted),
        null_vector=_named(names, null),
        feasible_interval=_feasible(gains, null, problem.upper),
        active_bounds=tuple(_active(names, gains, problem.upper)),
        scale=problem.scale,
        warnings=warnings,
    )
    if not out.misses_target:
        return out
    why = (
        "the bounds on the gains keep the target SNR"
        if out.active_bounds
        else "contrasts were matched, not SNR: target"
    )
    reached = ", ".join(f"{name} {out.predicted[name]:.3g} of {value:.3g}" for name, value in out.target.items())
    return replace(out, warnings=(*warnings, f"{why} out of reach: {reached}"))


def _feasible(gains: Array, null: Array, upper: float) -> tuple[float, float]:
    """Return the interval of t for which 0 <= gains + t null <= upper."""
    used = np.abs(null) > 1e-15
    ends = np.stack([-gains[used] / null[used], (upper - gains[used]) / null[used]])
    return float(ends.min(0).max()), float(ends.max(0).min())


def _active(names: tuple[str, ...], gains: Array, upper: float) -> list[str]:
    return [
        f"{name} = {bound:g}"
        for name, gain in zip(names, gains, strict=True)
        for bound in (0.0, upper)
        if abs(gain - bound) <= 1e-6 * upper
    ]


def _contrast_warnings(problem: _Problem, gains: Array, source: Array) -> list[str]:
    """Say where the scan would have more contrast than its source, or the opposite one: information made up."""
    predicted = problem.matrix @ gains
    index = {name: i for i, name in enumerate(problem.names)}
    out = []
    for a, b in pairs(problem.names):
        new, old = (_michelson(v[index[a]], v[index[b]]) for v in (predicted, source))
        if new * old < 0:
            out.append(
                f"{a}-{b} contrast is reversed: {new:+.3f} against {old:+.3f} in the source; borders are not real"
            )
        elif abs(new) > abs(old) * 1.01 + 1e-6:
            more = f" ({100 * (new / old - 1):+.0f} %)" if old else ""
            out.append(f"{a}-{b} contrast (Michelson) {new:.3f} exceeds the source's {old:.3f}{more}")
    return out


def _michelson(a: float, b: float) -> float:
    return float((a - b) / (a + b)) if a + b else 0.0


def _named(names: tuple[str, ...], values: Array) -> Mapping[str, float]:
    return MappingProxyType({name: float(value) for name, value in zip(names, values, strict=True)})
