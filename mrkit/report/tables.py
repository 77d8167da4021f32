"""Scores as tables of a report: which figures are shown, their digits, and what each means."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from mrcore.data.volume import TissueMap, Volume
from mrcore.metrics.edges import EdgeSettings
from mrcore.metrics.overlap import CORE_PROBABILITY, TissueContrast, wm_gm_contrast
from mrcore.metrics.scores import RegionScores, Scores
from mrcore.metrics.similarity import bounding_box, mslc
from mrkit.report.report import Better, Column, Row, Table

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
