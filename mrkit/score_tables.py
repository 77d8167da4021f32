"""Scores as tables of a report: which figures are shown, their digits, and what each means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.edges import EdgeSettings
from mrcore.metrics import RegionScores, Scores, TissueContrast, mslc, wm_gm_contrast
from mrcore.overlap import CORE_PROBABILITY
from mrcore.similarity import bounding_box
from mrcore.volume import TissueMap, Volume
from mrkit.report import Better, Column, Row, Table
from ulfsim.calibrate import Calibration

_OVERALL = (
    Column(
        "WM-GM Michelson",
        "",
        Better.NEAR_REFERENCE,
        3,
        "(W - G) / (W + G) of mean intensities over the reference's tissue cores (probability above 0.9). More than "
        "the reference has is not better.",
    ),
    Column(
        "MSLC",
        "",
        Better.LOWER,
        3,
        "Mean shifted line correlation (after Schuppert 2022): Pearson correlation of lines half the mask's box apart, "
        "over the three axes, without constant lines. Ghosts raise it.",
    ),
)


@dataclass(frozen=True)
class Calibrated:
    """A quantity that a simulation was calibrated to: what was asked for, and what the result shows."""

    name: str
    target: float
    measured: float


def _similarity_columns(edges: EdgeSettings) -> tuple[Column, ...]:
    shape = (
        "Structural similarity in 3-D (Wang 2004): Gaussian windows of 1.5 voxels, data range of the reference inside "
        "the mask, both images 0 outside the mask."
    )
    gradient = (
        "RMS length of the difference of the two gradient vectors (per mm, central differences), relative to the RMS "
        "gradient of the reference. A flat image scores 1."
    )
    edge = (
        f"F1 of Canny edges against those of the reference, in every slice across {len(edges.axes)} of the three voxel "
        f"axes, pooled; smoothing {edges.sigma_voxels:g} voxel, thresholds at the {100 * edges.low_quantile:g}th and "
        f"{100 * edges.high_quantile:g}th percentile of the reference's gradient, for both images."
    )
    peak = "10 log10(R\N{SUPERSCRIPT TWO} / MSE); R is the data range of the reference inside the mask."
    return (
        Column("PSNR", "dB", Better.HIGHER, 2, peak),
        Column("SSIM", "", Better.HIGHER, 3, shape),
        Column("NRMSE", "", Better.LOWER, 3, "RMS difference relative to the RMS of the reference."),
        Column("Gradient error", "", Better.LOWER, 3, gradient),
        Column("Edge F1, exact", "", Better.HIGHER, 3, edge),
        Column("Edge F1, 1 voxel", "", Better.HIGHER, 3, "The same, where an edge may be off by one voxel."),
    )


def score_tables(scores: Mapping[str, Scores]) -> tuple[Table, ...]:
    """Return the tables of image scores by method: well inside the mask, the whole mask, contrast and ghosting."""
    if not scores:
        return ()
    first = next(iter(scores.values()))
    columns = _similarity_columns(first.edges)
    return (
        _region_table(
            "Well inside the brain",
            f"more than {first.inside_depth_mm:g} mm from the edge of the mask",
            columns,
            {name: s.inside for name, s in scores.items()},
        ),
        _region_table("Whole brain", "the whole mask", columns, {name: s.whole for name, s in scores.items()}),
        Table(
            "Contrast and ghosting",
            _OVERALL,
            (
                Row("truth", (_michelson(first.reference_contrast), first.reference_mslc), is_reference=True),
                *(Row(name, (_michelson(s.contrast), s.mslc)) for name, s in scores.items()),
            ),
        ),
    )


def contrast_table(images: Mapping[str, Volume], tissues: TissueMap, mask: Tensor) -> Table:
    """Return the contrast of images for which no truth is known, all measured in the same tissue cores."""
    # Intensities are in units of the scan, so about four digits of them are shown whatever these are.
    peak = max((float(image.data.abs().max()) for image in images.values()), default=1.0)
    digits = max(0, 3 - math.floor(math.log10(peak))) if peak > 0 else 3
    columns = (
        Column("WM", "", Better.NEITHER, digits, "Mean intensity of white matter, over its core (probability > 0.9)."),
        Column("GM", "", Better.NEITHER, digits, "Mean intensity of grey matter, over its core."),
        Column("WM-GM Michelson", "", Better.NEITHER, 3, "(W - G) / (W + G) of these means. More is not better."),
        Column("MSLC", "", Better.LOWER, 3, _OVERALL[1].definition),
    )
    rows = []
    for name, image in images.items():
        found = _contrast(image, tissues, mask)
        levels = (None, None, None) if found is None else (found.white, found.grey, found.michelson)
        rows.append(Row(name, (*levels, mslc(torch.where(mask, image.data, 0.0)[bounding_box(mask)]))))
    note = "no truth is known, so nothing here says which image is right; tissues are those of the result"
    return Table("Contrast", columns, tuple(rows), note)


def tissue_table(scores: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    """Return the table of `score_tissues` by method: Dice, HD95 and volume error of every tissue."""
    names = tuple(next(iter(scores.values()))) if scores else ()
    columns: list[Column] = []
    for name in names:
        columns += [
            Column(f"{name} Dice", "", Better.HIGHER, 3, _DICE),
            Column(f"{name} HD95", "mm", Better.LOWER, 2, _HD95),
            Column(f"{name} volume", "%", Better.NEITHER, 1, _VOLUME),
        ]
    rows = [
        Row(
            method,
            tuple(
                value
                for name in names
                for value in (
                    found[name]["dice"],
                    found[name]["hd95_mm"],
                    100 * found[name]["volume_error_relative"],
                )
            ),
        )
        for method, found in scores.items()
    ]
    return Table("Tissues against the truth's", tuple(columns), tuple(rows))


def calibration_table(quantities: Sequence[Calibrated]) -> Table:
    """Return the table of targets and measured values of a simulation."""
    columns = (
        Column("Target", "", Better.NEITHER, 2, "What the simulation was calibrated to."),
        Column("Measured", "", Better.NEITHER, 2, "The same quantity, measured in the simulated scan."),
        Column("Difference", "%", Better.NEITHER, 1, "(measured - target) / |target|."),
    )
    rows = tuple(
        Row(q.name, (q.target, q.measured, 100 * (q.measured - q.target) / abs(q.target) if q.target else None))
        for q in quantities
    )
    return Table("Calibration", columns, rows, "signal and contrast to noise of the simulated scan")


def gains_table(calibration: Calibration) -> Table:
    """Return the table of gains, of the direction that contrasts leave open, and of the sensitivity to each target."""
    targets = tuple(next(iter(calibration.sensitivity.values()))) if calibration.target else ()
    columns = (
        Column("Gain", "", Better.NEITHER, 4, "Factor on the tissue's share of the source image."),
        Column("Noise-free SNR", "", Better.NEITHER, 2, "What these gains give in the tissue's core, without noise."),
        Column(
            "Null vector",
            "",
            Better.NEITHER,
            6,
            "Change of the gains that adds 1 to the SNR of every tissue and changes no contrast: what contrasts alone "
            "cannot tell.",
        ),
        *(
            Column(
                f"per {name}",
                "% / %",
                Better.NEITHER,
                2,
                f"Change of the gain in % when the target {name} rises by 1 %.",
            )
            for name in targets
        ),
    )
    rows = tuple(
        Row(
            name,
            (
                gain,
                calibration.predicted[name],
                calibration.null_vector[name],
                *(_elasticity(calibration, name, target) for target in targets),
            ),
        )
        for name, gain in calibration.gains.items()
    )
    low, high = calibration.feasible_interval
    bounds = f"on a bound: {', '.join(calibration.active_bounds)}" if calibration.active_bounds else "none on a bound"
    note = (
        f"gauge: {calibration.gauge}; {bounds}; {low:.3g} to {high:.3g} null vectors may be added within the bounds; "
        f"scale: {calibration.scale}"
    )
    return Table("Gains", columns, rows, note)


def _elasticity(calibration: Calibration, tissue: str, target: str) -> float | None:
    """Return the relative change of a gain per relative change of a target: a tissue's SNR, or a pair's contrast."""
    first, _, second = target.partition("-")
    goal = calibration.target[first] - (calibration.target[second] if second else 0.0)
    gain = calibration.gains[tissue]
    return calibration.sensitivity[tissue][target] * goal / gain if gain else None


_DICE = "2 |A and B| / (|A| + |B|) of the voxels where the tissue is the most probable one."
_HD95 = "Larger of the two directed 95th percentiles of the distance between the two surfaces, in mm."
_VOLUME = "Summed probability times voxel volume, minus the reference's, relative to it."


def _region_table(title: str, note: str, columns: tuple[Column, ...], scores: Mapping[str, RegionScores]) -> Table:
    rows = tuple(
        Row(name, (s.psnr_db, s.ssim, s.nrmse, s.gradient_error, s.edge_f1_0, s.edge_f1_1))
        for name, s in scores.items()
    )
    return Table(title, columns, rows, note)


def _contrast(image: Volume, tissues: TissueMap, mask: Tensor) -> TissueContrast | None:
    cores = [bool(((tissues.of(name) > CORE_PROBABILITY) & mask).any()) for name in ("WM", "GM")]
    return wm_gm_contrast(image.data, tissues, None, mask) if all(cores) else None


def _michelson(contrast: TissueContrast | None) -> float | None:
    return None if contrast is None else contrast.michelson
