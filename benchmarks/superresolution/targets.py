"""The numbers that are asked of super-resolution, met or not; what was not measured is not met."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common.results import Row, target

from superresolution.scene import NOMINAL, THREE
from superresolution.scores import DICE, IMAGES, RATIO, SPREAD, TISSUES, difference, mean_over_brains, value
from superresolution.volumes import STRUCTURES
from superresolution.volumes import TABLE as VOLUMES

NAN = float("nan")
TARGET_SNR, LOW_SNR = 50.0, 20.0
INSIDE, F1 = "PSNR dB inside", "F1@1 inside"


def targets_of(rows: Sequence[Row], default: str, tv: str, hessian: str, priors: Sequence[str]) -> list[Row]:
    """Return all targets on image quality; `priors` are the methods with anatomical priors, of which the best counts.

    Differences are means over the brains that both methods have; the name says of how many scans. The best prior is
    chosen once, by its PSNR inside at SNR 50.
    """
    best = _best(rows, priors, hessian)
    return [
        *_beside_tv(rows, default, tv),
        *_prior(rows, best, hessian),
        *_stacks(rows, best if best in _methods(rows, THREE) else default, hessian),
        *_tissues(rows, best, tv),
        *_volumes(rows, best),
    ]


def _best(rows: Sequence[Row], priors: Sequence[str], other: str) -> str:
    condition = (TARGET_SNR, NOMINAL)
    gains = {name: difference(rows, IMAGES, INSIDE, name, other, condition)[0] for name in priors}
    found = {name: gain for name, gain in gains.items() if gain is not None}
    return max(found, key=lambda name: found[name]) if found else "(no prior)"


def _methods(rows: Sequence[Row], scan: str) -> set[object]:
    return {row["method"] for row in rows if row["table"] == IMAGES and row["scan"] == scan}


def _beside_tv(rows: Sequence[Row], default: str, tv: str) -> Iterator[Row]:
    condition = (TARGET_SNR, NOMINAL)
    yield _gain(rows, IMAGES, INSIDE, default, tv, condition, -0.1)
    yield _gain(rows, IMAGES, F1, default, tv, condition, -0.005)


def _prior(rows: Sequence[Row], best: str, hessian: str) -> Iterator[Row]:
    for snr, least, aim in ((TARGET_SNR, 0.5, 1.0), (LOW_SNR, 0.8, 1.5)):
        yield _gain(rows, IMAGES, INSIDE, best, hessian, (snr, NOMINAL), least)
        yield _gain(rows, IMAGES, INSIDE, best, hessian, (snr, NOMINAL), aim, "aim: ")
    yield _gain(rows, IMAGES, F1, best, hessian, (TARGET_SNR, NOMINAL), 0.03)


def _stacks(rows: Sequence[Row], method: str, hessian: str) -> Iterator[Row]:
    yield _gain(rows, IMAGES, INSIDE, method, hessian, (TARGET_SNR, THREE), 0.3)


def _tissues(rows: Sequence[Row], best: str, tv: str) -> Iterator[Row]:
    condition = (TARGET_SNR, NOMINAL)
    for other in ("cubic", tv):
        yield _gain(rows, TISSUES, DICE, f"{best}, own tissues", other, condition, 0.05)
    for column, bounds in ((RATIO, (0.90, 1.05)), (SPREAD, (None, 1.1))):
        found = _mean(rows, IMAGES, column, best, condition)
        name = f"{best}: {column}, WM SNR {TARGET_SNR:g}"
        yield target(name, found, at_least=bounds[0], at_most=bounds[1])


def _volumes(rows: Sequence[Row], best: str) -> Iterator[Row]:
    """Yield how far the borders of structures are off: half a voxel of the result is what is stated."""
    name, condition = f"{best}, own tissues", (TARGET_SNR, NOMINAL)
    for structure in STRUCTURES:
        found = [
            abs(value(row, "border shift mm"))
            for row in rows
            if row["table"] == VOLUMES
            and (row["WM SNR"], row["scan"]) == condition
            and (row["method"], row["structure"]) == (name, structure)
        ]
        shift = sum(found) / len(found) if found else NAN
        yield target(f"{name}: {structure}, border shift in mm without its sign", shift, at_most=0.5)


def _gain(
    rows: Sequence[Row],
    table: str,
    column: str,
    method: str,
    other: str,
    condition: tuple[float, str],
    least: float,
    prefix: str = "",
) -> Row:
    found, n_scans = difference(rows, table, column, method, other, condition)
    name = f"{prefix}{method} minus {other}: {column}, WM SNR {condition[0]:g}, {condition[1]}, {n_scans} scans"
    return target(name, NAN if found is None else found, at_least=least)


def _mean(rows: Sequence[Row], table: str, column: str, method: str, condition: tuple[float, str]) -> float:
    chosen = [
        (row["brain"], value(row, column))
        for row in rows
        if row["table"] == table
        and row["method"] == method
        and (row["WM SNR"], row["scan"]) == condition
        and column in row
    ]
    return mean_over_brains(chosen) if chosen else NAN
