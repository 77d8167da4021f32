"""The report of several scans that were super-resolved together."""

from __future__ import annotations

from collections.abc import Sequence

from mrcore.data.volume import Volume
from mrkit.files.provenance import Record
from mrkit.report.figures import grey_figure, signed_figure, tissue_figure
from mrkit.report.pictures import Sections, sections, window_of
from mrkit.report.report import Column, Fact, Figure, Report, Row, Table
from mrkit.report.tables import contrast_table
from mrkit.report.words import history_curves, orientation_text, record_facts, size_text
from mrkit.superresolution.page import RESIDUAL_LIMIT_Z
from mrkit.superresolution.several import SuperResolvedSeveral


def several_report(
    scans: Sequence[Volume], weightings: Sequence[str], result: SuperResolvedSeveral, record: Record
) -> Report:
    """Compose the page: for each contrast scan, cubic and result in one window; tissues; a residual for each scan."""
    main, mask = result.images[0], result.tissues.mask
    planes = sections(main.grid, mask)
    figures: list[Figure] = []
    for contrast, image, plain in zip(result.contrasts, result.images, result.cubic, strict=True):
        window = window_of(image, mask)
        here = [scan for scan, name in zip(scans, weightings, strict=True) if name == contrast]
        figures += [
            grey_figure(f"{contrast} scan {n}", f"As measured, voxels of {size_text(scan.grid)}.", scan, planes, window)
            for n, scan in enumerate(here, start=1)
        ]
        figures.append(grey_figure(f"{contrast}, cubic", "Interpolation of its first scan.", plain, planes, window))
        text = f"Fitted to {len(here)} scan{'s' if len(here) > 1 else ''} of this contrast; tissues are shared by all."
        figures.append(grey_figure(f"{contrast}, INR", text, image, planes, window, focus=True))
    figures.append(
        tissue_figure("Segmentation", "Shared by all contrasts.", result.tissues, planes, main, window_of(main, mask))
    )
    figures += _residuals(weightings, result, planes)
    named = {f"{c}, INR": image for c, image in zip(result.contrasts, result.images, strict=True)}
    named |= {f"{c}, cubic": image for c, image in zip(result.contrasts, result.cubic, strict=True)}
    return Report(
        title="Several ultra-low-field scans of one person",
        summary=(
            f"{len(scans)} scans were brought to {size_text(main.grid)} by one fit through a model of each "
            f"acquisition; all were aligned to the first. {orientation_text()}"
        ),
        facts=(
            Fact("Scans", ", ".join(f"{n} {size_text(s.grid)}" for n, s in zip(weightings, scans, strict=True))),
            Fact("Result", size_text(main.grid)),
            *record_facts(record),
        ),
        notes=record.notes,
        figures=tuple(figures),
        planes=tuple(plane.name for plane in planes),
        tables=(contrast_table(named, result.tissues, mask), _pose_table(weightings, result)),
        curves=history_curves(result.solution),
        parameters={"seed": record.seed, **record.parameters},
        inputs=record.inputs,
        versions=record.versions,
    )


def _residuals(weightings: Sequence[str], result: SuperResolvedSeveral, planes: Sections) -> list[Figure]:
    text = "Scan minus the prediction, in units of the noise, where its header places it. Structure is misfit."
    return [
        signed_figure(f"Residual of scan {n} ({name})", text, residual, planes, RESIDUAL_LIMIT_Z, " sd")
        for n, (name, residual) in enumerate(zip(weightings, result.residuals_z, strict=True), start=1)
    ]


def _pose_table(weightings: Sequence[str], result: SuperResolvedSeveral) -> Table:
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
