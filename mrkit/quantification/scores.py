"""Errors of maps against known ones, by tissue, and their tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mrcore.data.volume import TissueMap
from mrcore.errors import BadInputError
from mrkit.quantification.quantify import Quantified
from mrkit.report.report import Better, Column, Row, Table

CORE = 0.9
"""Share of one tissue from which a voxel counts as that tissue."""

_MAPE = "Mean of |map - truth| / truth in %, over voxels that hold at least 90 % of one tissue."
_PD = (
    "Root mean square of map - truth in % of that of the truth, over the same voxels, after the one factor for the "
    "whole map that makes it least: raw data do not tell the scale of PD."
)


@dataclass(frozen=True, eq=False)
class KnownMaps:
    """The truth of a simulation on the grid of the maps: `t1_s`, `t2_s`, `pd` (X, Y, Z) and the tissues."""

    t1_s: Tensor
    t2_s: Tensor
    pd: Tensor
    tissues: TissueMap

    def __post_init__(self) -> None:
        if not self.t1_s.shape == self.t2_s.shape == self.pd.shape == self.tissues.grid.shape:
            raise BadInputError(f"known maps must share the grid of their tissues, {self.tissues.grid.shape}")

    def cores(self) -> dict[str, Tensor]:
        """Return the voxels (bool) that are surely of one tissue."""
        found = {name: self.tissues.of(name) > CORE for name in self.tissues.names}
        return {name: core for name, core in found.items() if bool(core.any())}


def mape(found: Tensor, truth: Tensor, where: Tensor) -> float:
    """Return the mean absolute relative error in % over the voxels `where` (bool)."""
    return float(100 * ((found - truth).abs() / truth)[where].mean())


def map_errors(result: Quantified, truth: KnownMaps) -> dict[str, dict[str, float]]:
    """Return the errors in % by tissue: `t1` and `t2` (mean absolute, relative) and `pd` (root mean square)."""
    cores = truth.cores()
    everywhere = torch.stack(list(cores.values())).any(0)
    pd = result.pd.data.abs()
    pd = pd * ((pd * truth.pd)[everywhere].sum() / pd.square()[everywhere].sum().clamp_min(1e-30))
    errors = {}
    for name, core in cores.items():
        rms = (pd - truth.pd)[core].square().mean().sqrt() / truth.pd[core].square().mean().sqrt()
        errors[name] = {
            "t1": mape(result.t1_s.data, truth.t1_s, core),
            "t2": mape(result.t2_s.data, truth.t2_s, core),
            "pd": float(100 * rms),
        }
    return errors


def error_table(errors: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    """Return the errors by method (rows) and tissue and quantity (columns)."""
    tissues = list(next(iter(errors.values())))
    columns, order = [], [(quantity, tissue) for quantity in ("t1", "t2", "pd") for tissue in tissues]
    for quantity, tissue in order:
        definition = _PD if quantity == "pd" else _MAPE
        columns.append(Column(f"{quantity.upper()} {tissue}", "%", Better.LOWER, 1, definition))
    rows = tuple(Row(name, tuple(found[t][q] for q, t in order)) for name, found in errors.items())
    return Table("Errors against the truth", tuple(columns), rows, "by tissue")


def difference_table(results: Mapping[str, Quantified]) -> Table:
    """Return what can be said of methods without a truth: medians, quartile ranges and what was left over."""
    columns = [
        Column("T1", "s, median", digits=3, definition="Median over the mask."),
        Column("T1 range", "s", digits=3, definition="Between the quartiles over the mask: anatomy and noise."),
        Column("T2", "ms, median", digits=1, definition="Median over the mask."),
        Column("T2 range", "ms", digits=1, definition="Between the quartiles over the mask: anatomy and noise."),
        Column(
            "Residual",
            "%, median",
            digits=1,
            definition="Share of a voxel's signal that no atom of the dictionary explains, median over the mask.",
        ),
    ]
    rows = []
    for name, result in results.items():
        t1, t2 = (np.percentile(v.data[result.mask].cpu().numpy(), (25, 50, 75)) for v in (result.t1_s, result.t2_s))
        left = 100 * result.residual.data[result.mask].median()
        rows.append(Row(name, tuple(map(float, (t1[1], t1[2] - t1[0], 1e3 * t2[1], 1e3 * (t2[2] - t2[0]), left)))))
    return Table("Methods", tuple(columns), tuple(rows), "no truth is known: agreement is not accuracy")
