"""The page of `mrkit quantify`: maps on fixed colour scales, what they are worth, and images made from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrcore.data.grid import Grid, directions
from mrcore.data.volume import Volume
from mrkit.files.provenance import Record
from mrkit.quantification.quantify import Quantified
from mrkit.quantification.scales import (
    B1_SCALE,
    ERROR_SCALE,
    PD_SD_SCALE,
    RESIDUAL_SCALE,
    T1_SCALE,
    T1_SD_SCALE,
    T2_SCALE,
    T2_SD_SCALE,
    QuantityScale,
)
from mrkit.quantification.scores import KnownMaps, difference_table, error_table, map_errors
from mrkit.report.curves import Curve
from mrkit.report.pictures import Section, Window, intensity_picture, quantity_picture, sections, window_of
from mrkit.report.plots import Line, LinePlot
from mrkit.report.report import Fact, Figure, PlotGroup, Report, Table
from mrkit.report.words import shape_text, size_text

_N_BINS = 100
_LINE_COLOURS = ("#0b6b62", "#c2571a", "#56b4e9", "#cc79a7", "#e69f00")
_TRUTH_COLOUR = "#8a929c"
_THIN = 4
"""Voxels; an axis with fewer has no planes along it to look at."""
_SD_TEXT = (
    "The least standard deviation that the noise of these samples allows without a prior (Cramer-Rao). Priors may stay "
    "below it; it knows nothing of their bias, nor of a wrong model."
)


@dataclass(frozen=True, eq=False)
class Shown:
    """What a page shows.

    `results` by method, the main one first; `weighted` images made from the main one; `truth` where it is known.
    All pictures are those of the mask of the main result.
    """

    results: Mapping[str, Quantified]
    weighted: Mapping[str, Volume] = field(default_factory=dict)
    truth: KnownMaps | None = None

    @property
    def main(self) -> Quantified:
        """The result that the page is about."""
        return next(iter(self.results.values()))


def quantify_report(
    shown: Shown, record: Record, title: str = "Quantitative maps", facts: tuple[Fact, ...] = ()
) -> Report:
    """Compose the report of `shown`; `facts` stand at its head beside those of the maps."""
    main = shown.main
    grid = main.t1_s.grid
    planes = planes_of(grid, main.mask)
    scales = f"T1 {T1_SCALE.label()}, T2 {T2_SCALE.label()}"
    return Report(
        title=title,
        record=record,
        summary="T1, T2 and PD from a magnetic resonance fingerprint. Colours mean the same value on every page: "
        f"{scales}; maps are shown where the object is. The patient's left is on the right.",
        facts=(
            Fact("Maps", f"{size_text(grid)}, {shape_text(grid)}"),
            Fact("Method", next(iter(shown.results))),
            *facts,
            Fact("Seed", str(record.seed)),
        ),
        figures=(*_map_figures(shown, planes), *_trust_figures(shown, planes), *_weighted_figures(shown, planes)),
        planes=tuple(plane.name for plane in planes),
        tables=_tables(shown),
        curves=tuple(curve for name, result in shown.results.items() for curve in _history(name, result)),
        groups=(_histograms(shown),),
    )


def planes_of(grid: Grid, mask: Tensor) -> tuple[Section, ...]:
    """Return the planes to show: axial, coronal and sagittal, less those across which there are hardly any voxels."""
    shown = sections(grid, mask if bool(mask.any()) else torch.ones_like(mask))
    thin = [axis for axis in range(3) if grid.shape[axis] < _THIN]
    if len(thin) != 1:
        return shown
    across = directions(grid)[:, thin[0]]
    normals = [np.cross(plane.across_mm, plane.down_mm) for plane in shown]
    return (shown[int(np.argmax([abs(normal @ across) for normal in normals]))],)


def _map_figures(shown: Shown, planes: tuple[Section, ...]) -> list[Figure]:
    truth, main = shown.truth, shown.main
    figures = []
    for scale, quantity in ((T1_SCALE, "t1_s"), (T2_SCALE, "t2_s")):
        text = f"{scale.label()}, the same on every page."
        if truth is not None:
            known = Volume(getattr(truth, quantity), main.t1_s.grid)
            figures.append(_coloured(f"{scale.name}, truth", text, known, planes, scale, main.mask, compared=True))
        for name, result in shown.results.items():
            volume = getattr(result, quantity)
            focus = result is main and scale is T1_SCALE
            title = f"{scale.name}, {name}"
            figures.append(_coloured(title, text, volume, planes, scale, main.mask, compared=True, focus=focus))
    for name, result in shown.results.items():
        pd = _magnitude(result.pd)
        window = Window(0.0, window_of(pd, main.mask).high)
        figures.append(
            _grey(f"PD, {name}", f"As all coils together see it; white is {window.high:.3g}.", pd, planes, window)
        )
    return figures


def _trust_figures(shown: Shown, planes: tuple[Section, ...]) -> list[Figure]:
    main, truth = shown.main, shown.truth
    figures = []
    if truth is not None:
        for quantity, known in (("t1_s", truth.t1_s), ("t2_s", truth.t2_s)):
            for name, result in shown.results.items():
                error = (getattr(result, quantity).data - known) / known.clamp_min(1e-6)
                volume = Volume(torch.where(known > 0, error, 0.0), main.t1_s.grid)
                title = f"Error of {quantity[:2].upper()}, {name}"
                figures.append(_coloured(title, "Map minus truth, relative.", volume, planes, ERROR_SCALE, main.mask))
    if main.b1 is not None:
        text = "The flip angle relative to the nominal one, as fitted."
        figures.append(_coloured("B1", text, main.b1, planes, B1_SCALE, main.mask))
    figures += [
        _coloured("Uncertainty of T1", _SD_TEXT, main.t1_sd_s, planes, T1_SD_SCALE, main.mask),
        _coloured("Uncertainty of T2", _SD_TEXT, main.t2_sd_s, planes, T2_SD_SCALE, main.mask),
        _coloured("Uncertainty of PD", _SD_TEXT, _relative_pd_sd(main), planes, PD_SD_SCALE, main.mask),
    ]
    text = "Share of the signal that no atom of the dictionary explains: noise, aliasing, motion, flow, mixed voxels."
    return [*figures, _coloured("Residual", text, main.residual, planes, RESIDUAL_SCALE, main.mask)]


def _weighted_figures(shown: Shown, planes: tuple[Section, ...]) -> list[Figure]:
    figures = []
    for name, volume in shown.weighted.items():
        window = Window(0.0, window_of(volume, shown.main.mask).high)
        figures.append(_grey(name, "Computed from the maps, not measured.", volume, planes, window))
    return figures


def _tables(shown: Shown) -> tuple[Table, ...]:
    if shown.truth is not None:
        return (error_table({name: map_errors(result, shown.truth) for name, result in shown.results.items()}),)
    return (difference_table(shown.results),)


def _history(name: str, result: Quantified) -> tuple[Curve, ...]:
    values = tuple(v for v in result.history if math.isfinite(v))
    if not values:
        return ()
    return (Curve(f"{name}: {result.message}", "iteration", result.history_of, values),)


def _histograms(shown: Shown) -> PlotGroup:
    plots = []
    for scale, quantity in ((T1_SCALE, "t1_s"), (T2_SCALE, "t2_s")):
        edges = np.linspace(scale.low, scale.high, _N_BINS + 1)
        lines = [
            _histogram(name, getattr(result, quantity).data[shown.main.mask] * scale.factor, edges, colour)
            for (name, result), colour in zip(shown.results.items(), _cycle(len(shown.results)), strict=True)
        ]
        if shown.truth is not None:
            lines += _true_values(shown.truth, quantity, scale, max(max(line.y) for line in lines))
        dashed = "; dashed: true median of each tissue" if shown.truth is not None else ""
        title = f"{scale.name} in the mask{dashed}"
        plots.append(LinePlot(title, f"{scale.name} in {scale.unit}", "% of the voxels per bin", tuple(lines)))
    text = "Values beyond the scale are not drawn; the shares are of all voxels of the mask."
    return PlotGroup("Histograms", text, tuple(plots))


def _histogram(name: str, values: Tensor, edges: NDArray[np.float64], colour: str) -> Line:
    counts, _ = np.histogram(values.double().cpu().numpy(), edges)
    shares = 100 * counts / max(1, values.numel())
    return Line(name, tuple(((edges[1:] + edges[:-1]) / 2).tolist()), tuple(shares.tolist()), colour)


def _true_values(truth: KnownMaps, quantity: str, scale: QuantityScale, height: float) -> list[Line]:
    """Return an upright line at the true median of each tissue that lies within the scale."""
    medians = [float(getattr(truth, quantity)[core].median()) * scale.factor for core in truth.cores().values()]
    return [
        Line("", (value, value), (0.0, height), _TRUTH_COLOUR, dashed=True)
        for value in medians
        if scale.low <= value <= scale.high
    ]


def _cycle(n: int) -> tuple[str, ...]:
    return tuple(_LINE_COLOURS[i % len(_LINE_COLOURS)] for i in range(n))


def _coloured(
    title: str,
    text: str,
    volume: Volume,
    planes: tuple[Section, ...],
    scale: QuantityScale,
    mask: Tensor,
    *,
    compared: bool = False,
    focus: bool = False,
) -> Figure:
    pictures = tuple(quantity_picture(volume, plane, scale.window, scale.colours, mask) for plane in planes)
    captions = tuple(plane.caption for plane in planes)
    return Figure(title, text, pictures, captions, scale.legend, compared=compared, focus=focus)


def _grey(title: str, text: str, volume: Volume, planes: tuple[Section, ...], window: Window) -> Figure:
    pictures = tuple(intensity_picture(volume, plane, window) for plane in planes)
    return Figure(title, text, pictures, tuple(plane.caption for plane in planes), compared=True)


def _relative_pd_sd(result: Quantified) -> Volume:
    return Volume(result.pd_sd.data / result.pd.data.abs().clamp_min(1e-30), result.pd.grid)


def _magnitude(volume: Volume) -> Volume:
    return Volume(volume.data.abs(), volume.grid)
