"""The page of an enhanced scan: verdict first, then the scan beside the result, its spread, and its residuals."""

from __future__ import annotations

import torch

from mrcore.data.volume import Volume
from mrcore.spatial.resampling import resample
from mrkit.enhancement.enhance import Enhanced
from mrkit.files.provenance import Record
from mrkit.report.figures import grey_figure, signed_figure
from mrkit.report.pictures import sections, window_of
from mrkit.report.report import Fact, Figure, Report
from mrkit.report.words import record_facts, shape_text, size_text

RESIDUAL_LIMIT_Z = 6.0


def enhance_report(scan: Volume, result: Enhanced, record: Record) -> Report:
    """Compose the report of `result`, made of `scan`."""
    grid = result.image.grid
    brain = resample(Volume(result.mask.float(), scan.grid), grid, order=1).data > 0.5
    planes = sections(grid, brain)
    interpolated = resample(scan, grid, order=3)
    window = window_of(interpolated, brain)
    figures: list[Figure] = [
        grey_figure("Cubic", "The scan, interpolated.", interpolated, planes, window),
        grey_figure(
            "Start", "The Gaussian estimate: what the scan allows without a network.", result.start, planes, window
        ),
        grey_figure(
            "Enhanced",
            "What the network restored, tethered to the scan. Detail beyond the scan's own resolution is synthetic.",
            result.image,
            planes,
            window,
            focus=True,
        ),
    ]
    change = Volume(result.image.data - result.start.data, grid)
    limit = float(torch.quantile(change.data[brain].abs()[:1_000_000], 0.99))
    figures.append(
        signed_figure("What the network added", "Enhanced minus start.", change, planes, max(limit, 1e-6), "")
    )
    residual = resample(result.residual_z, grid, order=1)
    figures.append(
        signed_figure(
            "Local residual",
            "Scan minus the scan that the result would have given, averaged over 4 or 7 mm, in units of its sd. Red: "
            "the scan is brighter, something is missing; blue: something was added.",
            residual,
            planes,
            RESIDUAL_LIMIT_Z,
            " sd",
        )
    )
    return Report(
        title="Enhanced scan (synthetic)",
        summary="One low-field scan restored by a network that was trained on simulated pairs. The image is a guess "
        "that agrees with the scan; the audit tells where it does not.",
        record=record,
        facts=(
            Fact("Scan", f"{size_text(scan.grid)}, {shape_text(scan.grid)}"),
            Fact("Result", f"{size_text(grid)}, {shape_text(grid)}"),
            *record_facts(record),
        ),
        figures=tuple(figures),
        planes=tuple(plane.name for plane in planes),
    )
