"""The verb `superresolve`: one ultra-low-field scan in, a finer image and its tissues out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inr.baselines import cubic
from inr.data import OneScan
from inr.fit import FitSettings, fit
from mrcore.forward import predict
from mrcore.noise import chi_moments
from mrcore.segment import Segmenter
from mrcore.solve import Solution
from mrcore.volume import TissueMap, Volume
from mrkit.lattice import inner
from mrkit.prepare import prepare, usable


@dataclass(frozen=True, eq=False)
class SuperResolved:
    """A super-resolved scan.

    `image`, `tissues` and `cubic` (for comparison) lie on the output grid; `residual_z`, (scan - expected) / sd under
    Rician noise, on the scan's. `noise_sd` is per real channel, in units of the scan. `solution` says how the fit
    ended.
    """

    image: Volume
    tissues: TissueMap
    cubic: Volume
    residual_z: Volume
    noise_sd: float
    solution: Solution
    notes: tuple[str, ...]


def superresolve(
    scan: Volume,
    *,
    voxel_mm: float = 1.0,
    mask: Tensor | None = None,
    tissues: TissueMap | None = None,
    segmenter: Segmenter | None = None,
    seed: int = 0,
    settings: FitSettings | None = None,
) -> SuperResolved:
    """Fit image and tissues of this subject to `scan` and render them at `voxel_mm`.

    Args:
        scan: magnitude scan; where its `meta` holds an `Acquisition`, the PSF is taken from there, else it is a
            Gaussian of one voxel with truncation.
        voxel_mm: isotropic output voxel; the output covers the scan's field of view along its axes.
        mask: brain mask (bool) on the scan's grid; found otherwise.
        tissues: initial tissue maps on the scan's grid; found by `segmenter` otherwise.
        segmenter: what finds the initial tissues; mrkit's HMRF-EM by default.
        seed: of the field's first state.
        settings: of the fit.

    Raises:
        BadInputError: a scan that cannot be used, or whose brain cannot be found.
        GridMismatchError: mask or tissues on another grid.
    """
    scan = usable(scan)
    ready = prepare(scan, voxel_mm=voxel_mm, mask=mask, tissues=tissues, segmenter=segmenter)
    fitted = fit(
        OneScan(ready.scan.data, ready.operator, ready.noise_sd),
        ready.lattice,
        ready.start[None],
        ready.foreground,
        ready.tissues,
        seed,
        settings,
        ready.resegment,
    )
    solution = fitted.solution
    notes = list(ready.notes)
    if not solution.converged:
        notes.append(f"the fit had not settled: {solution.message}")
    notes += _scarce(fitted.prob, ready.tissues.names)
    kept = {key: value for key, value in scan.meta.items() if key not in ("Acquisition", "Simulation")}
    image = inner(Volume(fitted.image * ready.scale, ready.lattice, kept), ready.output_grid)
    prob = torch.stack([inner(Volume(p, ready.lattice), ready.output_grid).data for p in fitted.prob])
    expected, sd = chi_moments(predict(ready.operator, fitted.image), ready.noise_sd)
    return SuperResolved(
        image,
        TissueMap(prob, ready.tissues.names, ready.output_grid),
        cubic(Volume(scan.data, scan.grid, kept), ready.output_grid),
        Volume((ready.scan.data - expected) / sd, scan.grid, kept),
        ready.noise.sd,
        replace(solution, x=image.data),
        tuple(notes),
    )


def _scarce(prob: Tensor, names: tuple[str, ...]) -> list[str]:
    """Return a note for each tissue (T, X, Y, Z) that is the likeliest in less than 1 % of the brain."""
    labels = prob.argmax(0)[prob.sum(0) > 0.5]
    counts = torch.bincount(labels, minlength=len(names)).tolist()
    return [
        f"{name} makes up {100 * count / len(labels):.2g} % of the brain found: do not trust the tissues"
        for name, count in zip(names, counts, strict=True)
        if count < 0.01 * len(labels)
    ]
