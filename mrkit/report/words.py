"""Phrases that the reports of several verbs share."""

from __future__ import annotations

import math

from mrcore.data.grid import Grid
from mrcore.solvers import Solution
from mrkit.files.provenance import Record
from mrkit.report.curves import Curve
from mrkit.report.report import Fact

_TIMES = " \N{MULTIPLICATION SIGN} "
_WORLD = "Planes cut the brain's middle (the sagittal one 10 mm to its right) and are the same in every row. "


def record_facts(record: Record) -> tuple[Fact, ...]:
    """Return segmenter and seed."""
    return Fact("Segmenter", record.segmenter), Fact("Seed", str(record.seed))


def history_curves(fit: Solution | None) -> tuple[Curve, ...]:
    """Return the objective over the iterations, where there was a fit."""
    values = tuple(float(v) for v in fit.history if math.isfinite(v)) if fit is not None else ()
    if fit is None or not values:
        return ()
    ending = "converged" if fit.converged else "stopped before convergence"
    return (Curve(f"Objective of the fit: {ending}, {fit.message}", "iteration", "objective", values),)


def orientation_text(radiological: bool = True) -> str:
    """Say where the planes lie and which side is left."""
    side = "radiological: the patient's left is on the right" if radiological else "neurological: left is left"
    return f"{_WORLD}The convention is {side}."


def size_text(grid: Grid) -> str:
    """Return the voxel size for a reader."""
    sizes = [f"{s:.3g}" for s in grid.spacing_mm]
    return f"{sizes[0]} mm" if len(set(sizes)) == 1 else _TIMES.join(sizes) + " mm"


def shape_text(grid: Grid) -> str:
    """Return the number of voxels along each axis and where the axes point to, for a reader."""
    return f"{_TIMES.join(str(n) for n in grid.shape)} {grid.orientation}"
