"""How far a result can be trusted, as a report shows it: maps, and whether the residual is noise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from inr.uncertainty import Whiteness
from mrcore.volume import Volume
from mrkit.pictures import Sections, css_colour, intensity_picture
from mrkit.pictures import Window as DisplayWindow
from mrkit.plots import Line, LinePlot
from mrkit.report import Better, Column, Figure, Legend, Row, Table
from mrkit.report_figures import signed_figure
from mrkit.trust import Trust

_AXES = ("i", "j", "k")
_COLOURS = ("#0b6b62", "#c4601d", "#3b62b5")
_BLACK, _WHITE = (10, 11, 14), (255, 255, 255)


def trust_figures(trust: Trust, planes: Sections, mask: Tensor) -> list[Figure]:
    """Return the maps of sd and of what the scan cannot see, in the brain."""
    sd, unseen = (Volume(torch.where(mask, v.data, 0.0), v.grid) for v in (trust.sd, trust.null_part))
    top = _high(sd.data[mask])
    legend = Legend((css_colour(_BLACK), css_colour(_WHITE)), ("0", f"{top:.3g}"), continuous=True)
    pictures = tuple(intensity_picture(sd, plane, DisplayWindow(0.0, top)) for plane in planes)
    captions = tuple(plane.caption for plane in planes)
    said = (
        f"Standard deviation of the image, in units of the scan: the spread of {trust.n_members} fits, and "
        "what the scan leaves open. Bright: do not trust fine detail here."
    )
    limit = _high(unseen.data[mask].abs())
    return [
        Figure("Uncertainty", said, pictures, captions, legend),
        signed_figure(
            "Not seen by the scan",
            "The part of the image that no scan voxel sees, in units of the scan: prior and field put it there.",
            unseen,
            planes,
            limit,
            "",
        ),
    ]


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
