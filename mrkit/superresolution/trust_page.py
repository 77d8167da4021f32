"""How far a result can be trusted, as a report shows it: maps, and whether the residual is noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from inr.trust.ensemble import Whiteness
from mrcore.data.volume import Volume
from mrkit.report.figures import grey_figure, signed_figure
from mrkit.report.pictures import Sections, Window, css_colour, intensity_picture
from mrkit.report.pictures import Window as DisplayWindow
from mrkit.report.plots import Line, LinePlot
from mrkit.report.report import Better, Column, Figure, Legend, Row, Table
from mrkit.superresolution.comparison import Comparison
from mrkit.superresolution.trust import Trust

_AXES = ("i", "j", "k")
_COLOURS = ("#0b6b62", "#c4601d", "#3b62b5")
_BLACK, _WHITE = (10, 11, 14), (255, 255, 255)


def trust_figures(trust: Trust, contrasts: Sequence[str], planes: Sections, mask: Tensor) -> list[Figure]:
    """Return, for each contrast, the maps of sd and of what its scans cannot see, in the brain."""
    several = len(contrasts) > 1
    return [
        figure
        for name, sd, unseen in zip(contrasts, trust.sds, trust.null_parts, strict=True)
        for figure in _maps(f" of {name}" if several else "", sd, unseen, trust.n_members, planes, mask)
    ]


def _maps(of: str, sd: Volume, unseen: Volume, n_members: int, planes: Sections, mask: Tensor) -> tuple[Figure, Figure]:
    sd, unseen = (Volume(torch.where(mask, v.data, 0.0), v.grid) for v in (sd, unseen))
    top = _high(sd.data[mask])
    legend = Legend((css_colour(_BLACK), css_colour(_WHITE)), ("0", f"{top:.3g}"), continuous=True)
    pictures = tuple(intensity_picture(sd, plane, DisplayWindow(0.0, top)) for plane in planes)
    text = (
        f"Standard deviation of the image, in units of the scan: the spread of {n_members} fits, and "
        "what the scan leaves open. Bright: do not trust fine detail here."
    )
    limit = _high(unseen.data[mask].abs())
    about = "The part of the image that no scan voxel sees, in units of the scan: prior and field put it there."
    return (
        Figure(f"Uncertainty{of}", text, pictures, tuple(plane.caption for plane in planes), legend),
        signed_figure(f"Not seen by the scan{of}", about, unseen, planes, limit, ""),
    )


def whiteness_table(found: Whiteness) -> Table:
    """Return mean, sd and the nearest correlations of the residuals."""
    columns = (
        Column("Mean", "noise sd", Better.NEITHER, 3, "Mean of (scan - prediction) / noise sd in the brain."),
        Column("Sd", "noise sd", Better.NEITHER, 3, "Sd of the same. Below 1 the image follows the noise."),
        *(
            Column(
                f"Neighbours, {axis}",
                "",
                Better.NEITHER,
                3,
                "Correlation of residuals one voxel apart along that axis of the scan. Positive: structure was missed.",
            )
            for axis in _AXES[: len(found.autocorrelation)]
        ),
    )
    nearest = tuple(axis[0] for axis in found.autocorrelation)
    error = max(axis[0] for axis in found.standard_error)
    white = Row("white noise", (0.0, 1.0, *(0.0 for _ in nearest)), is_reference=True)
    note = f"{found.n_voxels} voxels of the brain; 95 of 100 correlations of noise stay within {2 * error:.3f}"
    return Table("Residual", columns, (white, Row("this fit", (found.mean, found.sd, *nearest))), note)


def whiteness_plot(found: Whiteness) -> LinePlot:
    """Return the correlation of residuals over the distance in voxels, one line an axis, and the limits of noise."""
    lines = [
        Line(f"axis {axis}", (0.0, *_lags(values)), (1.0, *values), colour)
        for axis, values, colour in zip(_AXES, found.autocorrelation, _COLOURS, strict=False)
    ]
    limit = 2 * max((e for axis in found.standard_error for e in axis if np.isfinite(e)), default=0.0)
    n_lags = float(len(found.autocorrelation[0]))
    limits = [
        Line("noise" if sign > 0 else "", (0.0, n_lags), (sign * limit, sign * limit), "#8a929c", dashed=True)
        for sign in (1, -1)
    ]
    return LinePlot("Correlation of residuals", "distance in scan voxels", "correlation", (*lines, *limits))


def _lags(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(float(n) for n in range(1, len(values) + 1))


def _high(values: Tensor) -> float:
    """Return the 99th percentile, or 1 where all is 0."""
    top = float(np.percentile(values.cpu().numpy(), 99)) if values.numel() else 0.0
    return top if top > 0 else 1.0


_COLUMNS = (
    Column(
        "Held-out error",
        "noise sd",
        Better.LOWER,
        3,
        "RMS error of brain voxels of the scan that the method had not seen, predicted from its image through the "
        "forward model, in noise sd. A perfect prediction has 1.",
    ),
    Column(
        "against cubic",
        "%",
        Better.LOWER,
        1,
        "The same, relative to cubic interpolation of these voxels from their neighbours in the scan, minus 100 %.",
    ),
    Column(
        "Residual sd",
        "noise sd",
        Better.NEAR_REFERENCE,
        3,
        "Sd of (scan - prediction) / noise sd in the brain. Below 1 the image follows the noise; above, it misses "
        "signal.",
    ),
    Column(
        "Correlation",
        "",
        Better.NEAR_REFERENCE,
        3,
        "Largest correlation of neighbouring residuals over the three axes, with its sign. White residuals have 0.",
    ),
    Column(
        "WM-GM Michelson",
        "",
        Better.NEITHER,
        3,
        "(W - G) / (W + G) over the tissue cores of the result. More is not better.",
    ),
    Column(
        "CNR",
        "",
        Better.NEITHER,
        2,
        "(W - G) over the root mean square of the sd of both cores; smoothing raises it.",
    ),
    Column("Time", "s", Better.NEITHER, 1, "Seconds of the whole image, after the preparation that all share."),
)


def comparison_table(comparison: Comparison) -> Table:
    """Return the table of all methods; the reference row is what a right model of the scan would have."""
    ideal = Row("ideal", (1.0, None, 1.0, 0.0, None, None, None), is_reference=True)
    rows = [
        Row(
            one.name,
            (
                one.held_out,
                100 * (one.held_out / comparison.rms_cubic - 1),
                one.residual.sd,
                max((axis[0] for axis in one.residual.autocorrelation), key=abs),
                one.michelson,
                one.cnr,
                one.seconds,
            ),
        )
        for one in comparison.judged
    ]
    note = (
        f"no truth is known: judged by {comparison.n_voxels} held-out voxels, which cubic interpolation predicts "
        f"within {comparison.rms_cubic:.2f} noise sd, and by residuals"
    )
    return Table("All methods on this scan", _COLUMNS, (ideal, *rows), note)


def comparison_figures(comparison: Comparison, planes: Sections, window: Window) -> tuple[Figure, ...]:
    """Return one row of pictures for each method, all in the same window."""
    return tuple(grey_figure(one.name, one.text, one.image, planes, window) for one in comparison.judged)


def comparison_json(comparison: Comparison) -> dict[str, object]:
    """Return the numbers of the table by method and column, with units."""
    table = comparison_table(comparison)
    names = [f"{column.name} ({column.unit})" if column.unit else column.name for column in table.columns]
    return {
        "held_out_voxels": comparison.n_voxels,
        "cubic_interpolation_of_them": comparison.rms_cubic,
        "methods": {row.name: dict(zip(names, row.values, strict=True)) for row in table.rows if not row.is_reference},
        "definitions": {column.name: column.definition for column in table.columns},
    }
