"""What `mrkit fidelity` found: results by contrast and method, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from mrcore.data.volume import Volume
from mrcore.io.sidecar import software_version
from mrkit.files.provenance import Record
from ulfsim.measurement.facts import ScanFacts, facts_to_json
from ulfsim.measurement.fidelity import FidelityErrors, errors_to_json


@dataclass(frozen=True, eq=False)
class Pictured:
    """One scan to be shown, with its brain mask (bool, on its grid)."""

    title: str
    volume: Volume
    mask: Tensor


@dataclass(frozen=True, eq=False)
class MethodResult:
    """Scans made by one method: facts of each and their mean, `errors` of the mean.

    `each` holds the errors of every scan against the mean of the real ones, `pairs` those by person on both sides.
    """

    name: str
    facts: tuple[ScanFacts, ...]
    mean: ScanFacts
    errors: FidelityErrors
    each: Mapping[str, FidelityErrors] = field(default_factory=dict)
    pairs: Mapping[str, FidelityErrors] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ContrastResult:
    """Everything about scans of one weighting; `left_out` says which could not be measured, and why."""

    weighting: str
    real: tuple[ScanFacts, ...]
    real_mean: ScanFacts
    methods: tuple[MethodResult, ...]
    pictures: tuple[Pictured, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class FidelityResult:
    """All of a comparison, by contrast."""

    contrasts: tuple[ContrastResult, ...]


def result_to_json(result: FidelityResult, record: Record) -> dict[str, object]:
    """Return everything but pictures as JSON values: errors of means and by person, means and spreads, facts."""
    return {
        "version": software_version(),
        "parameters": dict(record.parameters),
        "inputs": [{"name": s.name, "sha256": s.sha256, "role": s.role} for s in record.sources],
        "notes": list(record.notes),
        "contrasts": {c.weighting: _contrast_json(c) for c in result.contrasts},
    }


def _contrast_json(contrast: ContrastResult) -> dict[str, object]:
    return {
        "real": {"n": len(contrast.real), **_mean_and_spread(contrast.real, contrast.real_mean)},
        "methods": {
            m.name: {
                "n": len(m.facts),
                "errors": errors_to_json(m.errors),
                "errors_by_scan": {name: errors_to_json(e) for name, e in m.each.items()},
                "errors_by_person": {name: errors_to_json(e) for name, e in m.pairs.items()},
                **_mean_and_spread(m.facts, m.mean),
            }
            for m in contrast.methods
        },
    }


def _mean_and_spread(facts: Sequence[ScanFacts], mean: ScanFacts) -> dict[str, object]:
    entries = [f.contrast[mean.noise_method] for f in facts]
    spread = {
        "snr": {name: _sd([e.snr[name] for e in entries]) for name in entries[0].snr},
        "cnr": {pair: _sd([e.cnr[pair] for e in entries]) for pair in entries[0].cnr},
        "edge_spread_mm": [_sd([f.edge_spread_mm[axis] for f in facts]) for axis in range(3)],
    }
    return {"mean": facts_to_json(mean), "sd": spread, "scans": [facts_to_json(f) for f in facts]}


def _sd(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
