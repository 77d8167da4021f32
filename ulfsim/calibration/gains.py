"""Calibration: one gain per tissue so that the simulated scan, measured again, has the target SNRs.

A scan's mean in region r is linear in the gains m: A_r = sum_t B[r, t] m_t, B[r, t] the mean over r of the scan of
tissue t's part of the image. Contrasts alone (differences of A) leave one direction free, the null vector n with
B n = 1: it adds the same SNR to every tissue. So each calibration states its gauge, what fixed that direction, and
reports how far the bounds would let one go along it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from mrcore.data.brief import Brief
from mrcore.data.volume import require_same_grid
from mrcore.errors import BadInputError
from mrcore.notes import Caution
from ulfsim.calibration.bounded import solve_bounded
from ulfsim.calibration.gauge import (
    Problem,
    active_bounds,
    check_determined,
    contrast_warnings,
    differences,
    feasible_interval,
    null_vector,
    sensitivity,
)
from ulfsim.calibration.response import response
from ulfsim.measurement.contrast import pairs
from ulfsim.plan import ScanPlan
from ulfsim.source.source import Source

Array = NDArray[np.float64]

_CLOSE = 0.01
ABSOLUTE = "absolute SNR of every tissue"
NEAREST = "contrasts, gains nearest to a prior"
SMALLEST_SIGNAL = 0.25
"""Of the signal that is asked of a tissue, what it keeps in the object. Partial volume in its core would be undone by
making the tissue itself darker still, in the end black. Published 64 mT T1w scans have CSF at 0.53, 0.28 and 0.14 of WM
(see `ulfsim.protocols.presets`): the darkest has a quarter of the brightest. Gains that meet the presets' targets on
five heads leave 0.28 of the signal asked for or more."""


@dataclass(frozen=True, repr=False)
class Calibration(Brief):
    """Gains and noise of a simulation, and how well determined they are.

    Attributes:
        gains: factor per tissue on the source image; each leaves its tissue a quarter of the signal asked for, or more.
        background_gain: factor outside all tissues.
        noise_sd: noise per real channel of the simulated scan, in units of the source image.
        gauge: what fixed the direction that contrasts leave free.
        target: SNR per tissue that was asked for (empty where only contrasts were).
        predicted: SNR per tissue that these gains give in the noise-free scan.
        null_vector: change of the gains that adds 1 to every SNR and changes no contrast.
        feasible_interval: multiples of `null_vector` that may be added within the bounds.
        active_bounds: gains that lie on a bound.
        sensitivity: d gain / d target, per tissue and target (a tissue's SNR, or a pair's contrast where only those
            were asked for); a gain on a bound moves with it. Where the noise was chosen too, it follows the target.
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
    sensitivity: Mapping[str, Mapping[str, float]]
    scale: str
    warnings: tuple[str, ...]

    @property
    def misses_target(self) -> bool:
        """Whether a predicted SNR is more than 1 % off its target."""
        return any(abs(self.predicted[name] / value - 1) > _CLOSE for name, value in self.target.items())


def to_json(calibration: Calibration) -> dict[str, object]:
    """Return the calibration as JSON values."""
    return {
        "Gains": dict(calibration.gains),
        "BackgroundGain": calibration.background_gain,
        "NoiseSd": calibration.noise_sd,
        "TargetSnr": dict(calibration.target),
        "PredictedSnr": dict(calibration.predicted),
        "Gauge": calibration.gauge,
        "NullVector": dict(calibration.null_vector),
        "FeasibleInterval": list(calibration.feasible_interval),
        "ActiveBounds": list(calibration.active_bounds),
        "Sensitivity": {name: dict(row) for name, row in calibration.sensitivity.items()},
        "Scale": calibration.scale,
        "Warnings": list(calibration.warnings),
    }


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
    """Find gains up to `upper` that give the scan of `source` the SNRs of `target_snr` (tissue -> SNR).

    Each gain leaves its tissue in the object `SMALLEST_SIGNAL` of the signal that its target stands for, or more. Where
    that keeps a target out of reach, a warning says which, and what is reached.

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
    check_determined(matrix)
    target = np.array([target_snr[name] for name in names])
    rows, effect = _system(matrix, None if prior is None else np.array([prior[name] for name in names]))
    scale, limit = "units of the source, whose noise sd was given", np.inf
    if noise_sd is not None:
        limit = upper / noise_sd
    bounds = np.r_[np.full(len(names), limit), np.full(rows.shape[1] - len(names), np.inf)]
    # The floor is proportional to the targets.
    floors = np.zeros((rows.shape[1], len(names)))
    floors[: len(names)] = _floors(target, np.array(source.levels))
    floor = np.minimum(floors @ target, bounds)
    unit = solve_bounded(rows, effect @ target, floor, bounds)
    free = (unit > floor + 1e-6 * unit.max()) & (unit < bounds * (1 - 1e-6))
    at_floor = (unit < bounds * (1 - 1e-6))[:, None]
    slope = sensitivity(rows, effect, free, np.where(at_floor, floors, 0.0))[: len(names)]
    unit = unit[: len(names)]
    if noise_sd is None:
        scale = f"intensities of the source: the largest gain is {upper:g}"
        largest = int(unit.argmax())
        noise_sd = float(upper / unit[largest])
        # All gains are divided by the largest, whose own change they share.
        slope = slope - np.outer(unit / unit[largest], slope[largest])
    gains = np.minimum(unit * noise_sd, upper)
    lower = floor[: len(names)] * noise_sd
    problem = Problem(names, matrix, upper, noise_sd, ABSOLUTE if prior is None else NEAREST, scale, lower)
    warnings = (*notes, *contrast_warnings(names, matrix @ gains, np.array(source.levels), reorders=source.synthetic))
    slopes = table(names, names, slope * noise_sd)
    return concluded(problem, gains, matrix @ gains, named(names, target), slopes, warnings)


def concluded(
    problem: Problem,
    gains: Array,
    predicted: Array,
    target: Mapping[str, float],
    slope: Mapping[str, Mapping[str, float]],
    warnings: tuple[str, ...],
    background_gain: float | None = None,
) -> Calibration:
    """Return the calibration with `gains`, whose noise-free means per region are `predicted`.

    `slope` is its sensitivity; the background has the gain of the last tissue where none is given.
    """
    names, null = problem.names, null_vector(problem)
    out = Calibration(
        gains=named(names, gains),
        background_gain=float(gains[-1]) if background_gain is None else background_gain,
        noise_sd=float(problem.noise_sd),
        gauge=problem.gauge,
        target=target,
        predicted=named(names, predicted / problem.noise_sd),
        null_vector=named(names, null),
        feasible_interval=feasible_interval(gains, null, problem.upper, problem.lower),
        active_bounds=active_bounds(problem, gains),
        sensitivity=slope,
        scale=problem.scale,
        warnings=tuple(note if isinstance(note, Caution) else Caution(note) for note in warnings),
    )
    if not out.misses_target:
        return out
    return replace(out, warnings=(*out.warnings, Caution(_missed(out, problem, gains), rank=0)))


def _missed(found: Calibration, problem: Problem, gains: Array) -> str:
    """Say which SNRs and contrasts were asked for and are not reached, and why."""
    asked, reached = found.target, found.predicted
    snrs = [f"SNR of {n} {reached[n]:.3g} of {v:.3g}" for n, v in asked.items() if abs(reached[n] / v - 1) > _CLOSE]
    contrasts = [
        f"{a}-{b} {reached[a] - reached[b]:.3g} of {asked[a] - asked[b]:.3g}"
        for a, b in pairs(problem.names)
        if abs(reached[a] - reached[b] - asked[a] + asked[b]) > _CLOSE * max(asked.values())
    ]
    low = [
        name for name, kept in zip(problem.names, gains <= problem.lower + 1e-6 * problem.upper, strict=True) if kept
    ]
    why = "the bounds on the gains keep the target SNR"
    if problem.gauge != ABSOLUTE:
        why = "contrasts were matched, not SNR: target"
    elif low:
        why = f"partial volume in the core of {' and '.join(low)} keeps the target SNR"
    text = f"{why} out of reach: {', '.join(snrs)}"
    if contrasts:
        text += f"; contrast {', '.join(contrasts)}"
    if low and problem.gauge == ABSOLUTE:
        text += f". The gain of {' and '.join(low)} was kept where the object has a quarter of the signal asked for"
    return text


def _floors(target: Array, levels: Array) -> Array:
    """Return the matrix (tissues, targets) that takes `target` to the least gains for unit noise.

    They leave a part of the signal asked for; one that the source all but lacks is raised no more than the brightest.
    """
    levels = levels.clip(1e-3 * levels.max())
    needed, brightest = target / levels, int(target.argmax())
    out = np.diag(SMALLEST_SIGNAL / levels)
    beyond = needed > needed[brightest]
    out[beyond] = 0.0
    out[beyond, brightest] = SMALLEST_SIGNAL / levels[brightest]
    return out


def _system(matrix: Array, prior: Array | None) -> tuple[Array, Array]:
    """Return rows and effect of min |rows x - effect target|^2, whose first unknowns are the gains for unit noise."""
    n = len(matrix)
    contrasts = differences(tuple(str(i) for i in range(n)))
    if prior is None:
        return np.vstack([contrasts @ matrix, matrix]), np.vstack([contrasts, np.eye(n)])
    # Bloch ratios know no common factor, so that factor is one more unknown (last column). The weight is far below
    # the contrasts' rows and far above rounding.
    weight = 1e-4 * np.abs(matrix).max()
    rows = np.block(
        [
            [contrasts @ matrix, np.zeros((len(contrasts), 1))],
            [weight * np.eye(n), -weight * prior[:, None] / np.linalg.norm(prior)],
        ]
    )
    return rows, np.vstack([contrasts, np.zeros((n, n))])


def table(rows: tuple[str, ...], columns: tuple[str, ...], values: Array) -> Mapping[str, Mapping[str, float]]:
    """Return `values` (rows, columns) by name."""
    return MappingProxyType({name: named(columns, row) for name, row in zip(rows, values, strict=True)})


def named(names: tuple[str, ...], values: Array) -> Mapping[str, float]:
    """Return `values` by name, as plain numbers."""
    return MappingProxyType({name: float(value) for name, value in zip(names, values, strict=True)})
