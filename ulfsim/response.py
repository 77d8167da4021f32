"""Response: what the scan shows in each tissue's core per unit gain of each tissue."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ulfsim.measure import tissue_cores
from ulfsim.plan import ScanPlan, tissues_through
from ulfsim.source import Source


def response(source: Source, plan: ScanPlan) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return B (regions, tissues): the scan's mean in each tissue core per unit gain, and notes on thin cores.

    What no tissue covers is counted with the last tissue, whose gain it takes.
    """
    cores, notes = tissue_cores(tissues_through(plan, source.tissues))
    columns = []
    for i, part in enumerate(source.basis):
        image = source.rest.clone() if i == len(source.basis) - 1 else source.rest.new_zeros(source.rest.shape)
        image[source.window] += part
        scanned = plan.operator(image)
        columns.append([float(scanned[core].double().mean()) for core in cores])
    return np.array(columns, np.float64).T, notes
