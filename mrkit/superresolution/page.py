"""The reports of the two main verbs: super-resolution and simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.data.volume import TissueMap, Volume
from mrcore.metrics.scores import Scores
from mrcore.solvers import Solution
from mrkit.files.provenance import Record
from mrkit.report.figures import grey_figure, signed_figure, tissue_figure
from mrkit.report.pictures import sections, window_of
from mrkit.report.report import Fact, Figure, Report
from mrkit.report.tables import contrast_table, score_tables, tissue_table
from mrkit.report.words import _shape, history_curves, orientation_text, record_facts, size_text
from mrkit.superresolution.comparison import Comparison
from mrkit.superresolution.trust import Trust, residual_whiteness
from mrkit.superresolution.trust_page import (
    comparison_figures,
    comparison_table,
    trust_figures,
    whiteness_plot,
    whiteness_table,
)

RESIDUAL_LIMIT_Z = 4.0


@dataclass(frozen=True, eq=False)
class NamedImage:
    """An image of one method, and a sentence on what that method does."""

    name: str
    volume: Volume
    text: str = "Fitted to the scan through its forward model."


def superresolve_report(
    *,
    scan: Volume,
    cubic: Volume,
    images: Sequence[NamedImage],
    mask: Tensor,
    tissues: TissueMap,
    residual_z: Volume,
    record: Record,
    truth: Volume | None = None,
    scores: Mapping[str, Scores] | None = None,
    tissue_scores: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
    fit: Solution | None = None,
    trust: Trust | None = None,
    comparison: Comparison | None = None,
    title: str = "Super-resolution of an ultra-low-field scan",
    radiological: bool = True,
) -> Report:
    """Compose the report of a super-resolution.

    Args:
        scan: the ultra-low-field scan, on its own grid.
        cubic: its cubic interpolation, on the output grid.
        images: of the methods, on the output grid, the main result first.
        mask: brain, bool, on the output grid.
        tissues: of the main result, on the output grid.
        residual_z: (scan - prediction) / noise sd, on the scan's grid.
        record: seed, notes, inputs and parameters.
        truth: noise-free object in the scan's contrast, where it is known; without it only contrast is compared.
        scores: of `cubic` and `images` by name, where there is a truth.
        tissue_scores: `score_tissues` by method.
        fit: of the main result; its history is drawn.
        trust: of the main result: its maps are shown.
        comparison: of all methods on this scan.
        title: of the page.
        radiological: whether the patient's left is on the right of the pictures.
    """
    main_name, main = images[0].name, images[0].volume
    planes = sections(main.grid, mask, radiological=radiological)
    reference, of = (truth, "the truth") if truth is not None else (main, main_name)
    window = window_of(reference, mask)
    said = f"Window {window.low:.3g} to {window.high:.3g}: 0.5th and 99.5th percentile of {of} in the brain."
    figures: list[Figure] = []
    if truth is not None:
        figures.append(
            grey_figure("Truth", f"The object without noise, in the scan's contrast. {said}", truth, planes, window)
        )
    figures += [
        grey_figure(
            "ULF scan", f"As measured, voxels of {size_text(scan.grid)} shown as they are.", scan, planes, window
        ),
        grey_figure("Cubic", "Cubic interpolation of the scan: no model, no prior.", cubic, planes, window),
        *(grey_figure(i.name, i.text, i.volume, planes, window, focus=i is images[0]) for i in images),
        tissue_figure("Segmentation", f"Tissues of {main_name}, by {record.segmenter}.", tissues, planes, main, window),
    ]
    if truth is not None:
        limit = 0.3 * (window.high - window.low)
        for name, image in {"cubic": cubic, main_name: main}.items():
            error = Volume(torch.where(mask, image.data - truth.data, 0.0), image.grid)
            figures.append(
                signed_figure(f"Error of {name}", "Image minus truth, in the brain.", error, planes, limit, "")
            )
    figures.append(
        signed_figure(
            "Residual",
            "Scan minus the prediction from the result, in units of the noise. Structure here is signal that was "
            "missed; noise alone looks like sand.",
            residual_z,
            planes,
            RESIDUAL_LIMIT_Z,
            " sd",
        )
    )
    if trust is not None:
        figures += trust_figures(trust, planes, mask)
    if comparison is not None:
        figures += comparison_figures(comparison, planes, window)
    tables = list(score_tables(scores or {}))
    if truth is None:
        tables.append(contrast_table({"Cubic": cubic, **{i.name: i.volume for i in images}}, tissues, mask))
    if tissue_scores:
        tables.append(tissue_table(tissue_scores))
    if comparison is not None:
        tables.append(comparison_table(comparison))
    found = residual_whiteness(residual_z, Volume(mask.float(), main.grid))
    if found is not None:
        tables.append(whiteness_table(found))
    return Report(
        title=title,
        summary=(
            f"A scan with voxels of {size_text(scan.grid)} was brought to {size_text(main.grid)} by fitting this "
            f"subject's own image through a model of the acquisition. {orientation_text(radiological)}"
        ),
        facts=(
            Fact("Scan", f"{size_text(scan.grid)}, {_shape(scan.grid)}"),
            Fact("Result", f"{size_text(main.grid)}, {_shape(main.grid)}"),
            *record_facts(record),
        ),
        notes=record.notes,
        figures=tuple(figures),
        planes=tuple(plane.name for plane in planes),
        tables=tuple(tables),
        curves=history_curves(fit),
        plots=() if found is None else (whiteness_plot(found),),
        parameters={"seed": record.seed, **record.parameters},
        inputs=record.inputs,
        versions=record.versions,
    )
