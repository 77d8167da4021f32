"""Response: what the scan shows in each tissue's core per unit gain of each tissue."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from mrcore.data.grid import Shape3, cropped
from mrcore.data.volume import TissueMap
from ulfsim.measurement.contrast import tissue_cores
from ulfsim.plan import ScanPlan
from ulfsim.source.source import Source
from ulfsim.source.window import seen_window, through_window


def response(source: Source, plan: ScanPlan) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return B (regions, tissues): the scan's mean in each tissue core per unit gain, and notes on thin cores.

    The cores are those of the tissue maps as the scan sees them. What no tissue covers is counted with the last
    tissue, whose gain it takes. Everything is computed for the scan's voxels over the tissues alone.
    """
    seen = seen_window(plan, source.window)
    cores, notes = tissue_cores(_tissues_over(source, plan))
    scanned = through_window(plan.operator, source.basis, source.window, seen)
    whole = cast("tuple[slice, slice, slice]", tuple(slice(0, n) for n in source.rest.shape))
    scanned[-1] += through_window(plan.operator, source.rest, whole, seen)
    rows = [[float(part[core].double().mean()) for part in scanned] for core in cores]
    return np.array(rows, np.float64), notes


def _tissues_over(source: Source, plan: ScanPlan) -> TissueMap:
    """Return `ulfsim.plan.tissues_through` on the scan's voxels over the tissues."""
    seen = seen_window(plan, source.window)
    prob = through_window(plan.operator, source.inner_tissues.prob.to(plan.operator.dtype), source.window, seen)
    prob = prob.clamp_min_(0)
    start = cast("Shape3", tuple(s.start for s in seen))
    grid = cropped(plan.scan_grid, start, cast("Shape3", tuple(prob.shape[1:])))
    return TissueMap(prob / prob.sum(0).clamp_min(1), source.names, grid)
