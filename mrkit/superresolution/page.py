"""The report of a super-resolution: each contrast beside its scans, tissues, residuals, trust, other methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.data.volume import Volume
from mrcore.metrics.scores import Scores
from mrkit.files.provenance import Record
from mrkit.report.figures import grey_figure, signed_figure, tissue_figure
from mrkit.report.pictures import Sections, Window, sections, window_of
from mrkit.report.report import Column, Fact, Figure, Report, Row, Table
from mrkit.report.tables import contrast_table, score_tables, tissue_table
from mrkit.report.words import history_curves, orientation_text, record_facts, shape_text, size_text
from mrkit.superresolution.superresolve import SuperResolved
from mrkit.superresolution.trust import residual_whiteness
from mrkit.superresolution.trust_page import (
    comparison_figures,
    comparison_table,
    trust_figures,
    whiteness_plot,
    whiteness_table,
)

RESIDUAL_LIMIT_Z = 4.0
_RESIDUAL = "Scan minus the prediction from the result, in units of the noise. Structure here is signal that was missed"


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of a simulated scan, on the output grid.

    Attributes:
        image: noise-free object in the scan's contrast.
        mask: brain (bool, X, Y, Z).
        scores: of `cubic` and of the result, by name.
        tissue_scores: `score_tissues` by method.
    """

    image: Volume
    mask: Tensor
    scores: Mapping[str, Scores]
    tissue_scores: Mapping[str, Mapping[str, Mapping[str, float]]]


def superresolve_report(
    scans: Sequence[Volume],
    weightings: Sequence[str],
    result: SuperResolved,
    record: Record,
    truth: Truth | None = None,
    title: str = "",
) -> Report:
    """Compose the report of `result`, made of `scans` (each on its own grid) with `weightings` (BIDS suffixes).

    `title` is that of super-resolution where it is empty.
    """
    shown = _Shown(scans, weightings, result, truth)
    mask, planes = shown.mask, shown.planes
    images, cubics = shown.named(result.images, shown.method), shown.named(result.cubics, "Cubic")
    tables = list(score_tables({} if truth is None else truth.scores))
    if truth is None:
        tables.append(contrast_table(cubics | images | shown.mapped, result.tissues, mask))
    elif truth.tissue_scores:
        tables.append(tissue_table(truth.tissue_scores))
    if result.comparison is not None:
        tables.append(comparison_table(result.comparison))
    white = residual_whiteness(result.residual_z, Volume(mask.float(), result.image.grid))
    if white is not None:
        tables.append(whiteness_table(white))
    if result.stacks:
        tables.append(_pose_table(weightings, result))
    size = size_text(result.image.grid)
    return Report(
        title=title or _title(scans),
        summary=f"{_given(scans)} brought to {size} by fitting this subject's own image through a model of the "
        f"acquisition{'' if len(scans) == 1 else '; all were aligned to the first'}. {orientation_text()}",
        record=record,
        facts=(
            *(Fact(shown.scan_name(n), f"{size_text(s.grid)}, {shape_text(s.grid)}") for n, s in enumerate(scans)),
            Fact("Result", f"{size}, {shape_text(result.image.grid)}"),
            *record_facts(record),
        ),
        figures=tuple(_figures(shown, record)),
        planes=tuple(plane.name for plane in planes),
        tables=tuple(tables),
        curves=history_curves(None if shown.is_preview else result.solution),
        plots=() if white is None else (whiteness_plot(white),),
    )


@dataclass(frozen=True, eq=False)
class _Shown:
    """What is shown, and how it is called: of several contrasts each has its own name, of one no one needs it."""

    scans: Sequence[Volume]
    weightings: Sequence[str]
    result: SuperResolved
    truth: Truth | None

    @property
    def mask(self) -> Tensor:
        """The brain (bool) on the output grid."""
        return self.result.tissues.mask if self.truth is None else self.truth.mask

    @property
    def planes(self) -> Sections:
        """Planes through the brain."""
        return sections(self.result.image.grid, self.mask)

    @property
    def is_preview(self) -> bool:
        """Whether there was no fit."""
        return self.result.settings is None

    @property
    def method(self) -> str:
        """What the result is called."""
        return "Preview" if self.is_preview else "INR"

    def named(self, volumes: Sequence[Volume], kind: str) -> dict[str, Volume]:
        """Return volumes, one a contrast, by their names."""
        return {self.title(contrast, kind): volume for contrast, volume in enumerate(volumes)}

    def title(self, contrast: int, kind: str) -> str:
        """Return the name of what belongs to a contrast."""
        return kind if len(self.result.contrasts) == 1 else f"{self.result.contrasts[contrast]}, {kind}"

    def scan_name(self, number: int) -> str:
        """Return the name of a scan."""
        return "Scan" if len(self.scans) == 1 else f"Scan {number + 1}, {self.weightings[number]}"

    @property
    def mapped(self) -> dict[str, Volume]:
        """The image in another contrast, if there is one."""
        return {} if self.result.mapped is None else {"Mapped contrast": self.result.mapped.mapped.image}


def _figures(shown: _Shown, record: Record) -> list[Figure]:
    """Return all rows of pictures in their order."""
    result, planes, mask, truth = shown.result, shown.planes, shown.mask, shown.truth
    reference, of = (result.image, shown.method) if truth is None else (truth.image, "the truth")
    window = window_of(reference, mask)
    figures: list[Figure] = []
    if truth is not None:
        text = f"The object without noise, in the scan's contrast. {_window_text(window, of)}"
        figures.append(grey_figure("Truth", text, truth.image, planes, window))
    for contrast in range(len(result.contrasts)):
        figures += _contrast_figures(shown, contrast, window if contrast == 0 else None)
    for name, image in shown.mapped.items():
        text = f"The same in the contrast of {_reference_name(record)}, by one rising curve."
        figures.append(grey_figure(name, text, image, planes, window))
    text = f"Tissues{'' if len(result.contrasts) == 1 else ', shared by all contrasts'}, by {record.segmenter}."
    figures.append(tissue_figure("Segmentation", text, result.tissues, planes, result.image, window))
    if truth is not None:
        limit = 0.3 * (window.high - window.low)
        for name, image in {"cubic": result.cubic, shown.method: result.image}.items():
            error = Volume(torch.where(mask, image.data - truth.image.data, 0.0), image.grid)
            text = "Image minus truth, in the brain."
            figures.append(signed_figure(f"Error of {name}", text, error, planes, limit, ""))
    for number, residual in enumerate(result.residuals_z):
        title = "Residual" if len(shown.scans) == 1 else f"{shown.scan_name(number)}: residual"
        where = "; noise alone looks like sand." if len(shown.scans) == 1 else ", where the header places the scan."
        figures.append(signed_figure(title, _RESIDUAL + where, residual, planes, RESIDUAL_LIMIT_Z, " sd"))
    if result.trust is not None:
        figures += trust_figures(result.trust, result.contrasts, planes, mask)
    if result.comparison is not None:
        figures += comparison_figures(result.comparison, planes, window)
    return figures


def _contrast_figures(shown: _Shown, contrast: int, window: Window | None) -> list[Figure]:
    """Return the scans of a contrast, their interpolation and the result, all in one window."""
    result, planes = shown.result, shown.planes
    image = result.images[contrast]
    window = window or window_of(image, shown.mask)
    figures = []
    for number, (scan, weighting) in enumerate(zip(shown.scans, shown.weightings, strict=True)):
        if len(shown.scans) > 1 and weighting != result.contrasts[contrast]:
            continue
        name = "ULF scan" if len(shown.scans) == 1 else shown.scan_name(number)
        text = f"As measured, voxels of {size_text(scan.grid)} shown as they are."
        figures.append(grey_figure(name, text, scan, planes, window))
    one = len(shown.scans) == 1
    text = f"Cubic interpolation of {'the scan' if one else 'its first scan'}: no model, no prior."
    figures.append(grey_figure(shown.title(contrast, "Cubic"), text, result.cubics[contrast], planes, window))
    fitted = f"Fitted to the {'scan through its' if one else 'scans through their'} forward model."
    text = "A smooth start, without a fit." if shown.is_preview else fitted
    focus = contrast == 0
    figures.append(grey_figure(shown.title(contrast, shown.method), text, image, planes, window, focus=focus))
    return figures


def _reference_name(record: Record) -> str:
    """Return the file whose contrast was taken; a script's image has no name."""
    path = record.inputs.get("scan whose contrast is taken")
    return "a high-field scan" if path is None else path.name


def _title(scans: Sequence[Volume]) -> str:
    return f"Super-resolution of {'an ultra-low-field scan' if len(scans) == 1 else 'ultra-low-field scans'}"


def _given(scans: Sequence[Volume]) -> str:
    if len(scans) == 1:
        return f"A scan with voxels of {size_text(scans[0].grid)} was"
    return f"{len(scans)} scans of one person were"


def _window_text(window: Window, of: str) -> str:
    return f"Window {window.low:.3g} to {window.high:.3g}: 0.5th and 99.5th percentile of {of} in the brain."


def _pose_table(weightings: Sequence[str], result: SuperResolved) -> Table:
    rows = []
    for number, (name, stack) in enumerate(zip(weightings, result.stacks, strict=True), start=1):
        weights = stack.slice_weights
        less = 0 if weights is None else int((weights < 0.5).sum())
        values = (stack.pose.angle_deg, stack.pose.distance_mm, stack.scale, float(less))
        rows.append(Row(f"{number}, {name}", values))
    columns = (
        Column("angle", "deg", digits=2),
        Column("shift", "mm", digits=2),
        Column("scale"),
        Column("slices that count less than half", digits=0),
    )
    return Table("Scans", columns, tuple(rows), "Motion against the first scan, and what of each counts.")
