"""The verb `superresolve`: one ultra-low-field scan in, a finer image and its tissues out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inr.baselines import cubic, tikhonov
from inr.choice import Choice, choose_tv_weight
from inr.data import BiasedScan, Misfit, OneScan, with_bias
from inr.fit import Fit, FitSettings, fit
from inr.heldout import Split
from inr.loss import rician_misfit
from inr.prior import Prior
from inr.render import FittedField, fitted_field
from inr.uncertainty import FitOnce
from mrcore.forward import imaging_operator, predict
from mrcore.noise import chi_moments
from mrcore.segment import Segmenter
from mrcore.solve import Solution
from mrcore.volume import TissueMap, Volume
from mrkit.comparison import Comparison, compare
from mrkit.contrast_mapping import own_contrast
from mrkit.lattice import inner, lattice_for
from mrkit.prepare import PreparedScan, find_tissues, prepare, psf_of, usable
from mrkit.trust import KeepMember, Trust, kept_members, on_scan, trust
from mrkit.warm_start import warm_started

CHOICE_VOXEL_MM = 2.0
"""Voxel of the lattice on which the weight of total variation is chosen; its unit makes it hold on all lattices."""


@dataclass(frozen=True, eq=False)
class SuperResolved:
    """A super-resolved scan.

    `image`, `tissues` and `cubic` (for comparison) lie on the output grid; `residual_z`, (scan - expected) / sd under
    Rician noise, on the scan's. `noise_sd` is per real channel, in units of the scan. `solution` says how the fit
    ended; `settings` are those of the fit, `field` renders it on any grid. None: no fit (a preview), no ensemble, no
    comparison.
    """

    image: Volume
    tissues: TissueMap
    cubic: Volume
    residual_z: Volume
    noise_sd: float
    solution: Solution
    notes: tuple[str, ...]
    settings: FitSettings | None = None
    field: FittedField | None = None
    trust: Trust | None = None
    comparison: Comparison | None = None


def superresolve(
    scan: Volume,
    *,
    voxel_mm: float = 1.0,
    mask: Tensor | None = None,
    tissues: TissueMap | None = None,
    segmenter: Segmenter | None = None,
    seed: int = 0,
    settings: FitSettings | None = None,
    prior: Prior | None = None,
    likelihood: Misfit = rician_misfit,
    free_of_bias: bool = False,
    init: Volume | None = None,
    n_members: int = 0,
    compared: Mapping[str, Prior] | None = None,
    keep_member: KeepMember | None = None,
    preview: bool = False,
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
        settings: of the fit; without them the weight of total variation, where no prior takes its place, is chosen by
            held-out voxels of the scan.
        prior: what pulls the image towards likely ones.
        likelihood: of the scan; `inr.loss.absolute_misfit` withstands spikes and ghosts better than the Rician one.
        free_of_bias: whether a smooth receive field is found with the image and taken out of it.
        init: image to start from, of this person or a template; it is laid over the scan first.
        n_members: fits of the ensemble that says how far the result can be trusted; even, 0 for none.
        compared: priors by name; all methods, and the default with each of these, are run and judged. None: no such.
        keep_member: what keeps finished members and methods.
        preview: return the Tikhonov image, without a fit.

    Raises:
        BadInputError: a scan that cannot be used, or whose brain cannot be found.
        GridMismatchError: mask or tissues on another grid.
    """
    scan = usable(scan)
    found_first: list[str] = []
    if preview:
        # Given tissues are not found anew on the fine lattice, which takes longer than all else.
        tissues, mask = find_tissues(scan, tissues, mask, segmenter, found_first), None
    ready = prepare(scan, voxel_mm=voxel_mm, mask=mask, tissues=tissues, segmenter=segmenter)
    notes = [*found_first, *(note for note in ready.notes if not found_first or note != "tissues: given maps")]
    if init is not None:
        ready = warm_started(ready, usable(init), notes)
    if preview:
        notes.append("preview: a Tikhonov image, without a fit")
        ended = Solution(ready.start, True, 0, (), "preview: no fit")
        return _result(scan, ready, ready.start, ready.tissues.prob, ended, notes)
    if settings is None and prior is not None:
        settings = FitSettings()  # a prior takes the place of total variation
    if settings is None:
        choice = chosen_weight(ready)
        notes.append(choice.message)
        settings = replace(FitSettings(), tv_weight=choice.weight)
    fitted = fit_prepared(ready, seed, settings, prior, likelihood, free_of_bias=free_of_bias)
    if isinstance(fitted.data, BiasedScan) and fitted.data.bias is not None:
        shading = fitted.data.bias.field()[ready.tissues.mask]
        notes.append(
            f"a smooth receive field of {float(shading.min()):.2f} to {float(shading.max()):.2f} was taken out"
        )
        # What follows, residuals and trust, knows the field.
        ready = replace(ready, operator=fitted.data.model, start=ready.start / fitted.data.bias.field())
    if not fitted.solution.converged:
        notes.append(f"the fit had not settled: {fitted.solution.message}")
    notes += _scarce(fitted.prob, ready.tissues.names)
    found: Trust | None = None
    if n_members:
        again = kept_members(refit(ready, settings, prior), keep_member)
        found = trust(ready, fitted.image, again, n_members, seed)
        notes += found.notes
    result = _result(scan, ready, fitted.image, fitted.prob, fitted.solution, notes)
    result = replace(result, notes=(*result.notes, *_contrast_notes(result)))
    field = fitted_field(fitted, settings, ready.tissues.names, ready.scale)
    if compared is not None:
        own = TissueMap(fitted.prob, ready.tissues.names, ready.lattice)
        table = compare(ready, settings, seed, compared, own, keep_member)
        result = replace(result, comparison=table)
    return replace(result, settings=settings, field=field, trust=found)


def fit_prepared(
    ready: PreparedScan,
    seed: int,
    settings: FitSettings,
    prior: Prior | None = None,
    likelihood: Misfit = rician_misfit,
    *,
    free_of_bias: bool = False,
) -> Fit:
    """Fit one prepared scan."""
    data, start = OneScan(ready.scan.data, ready.operator, ready.noise_sd, likelihood), ready.start[None]
    if free_of_bias:
        data, start = with_bias(data, start, ready.tissues.prob, ready.lattice.spacing_mm)
    return fit(
        data,
        ready.lattice,
        start,
        ready.foreground,
        ready.tissues,
        seed,
        settings,
        ready.resegment,
        prior,
    )


def refit(ready: PreparedScan, settings: FitSettings, prior: Prior | None) -> FitOnce:
    """Return what fits a part of the scan as `fit_prepared` fits the whole; tissues are not segmented again."""

    def fit_once(seen: Split) -> Tensor:
        begin = cubic(Volume(seen.filled, ready.scan.grid), ready.lattice).data
        smooth = tikhonov(seen.operator, seen.scan, ready.noise_sd, begin, ready.lattice.spacing_mm).x.clamp_min(0)
        part = OneScan(seen.scan, seen.operator, ready.noise_sd)
        done = fit(part, ready.lattice, smooth[None], ready.foreground, ready.tissues, seen.seed, settings, None, prior)
        return done.image

    return fit_once


def chosen_weight(ready: PreparedScan) -> Choice:
    """Return the weight of total variation that predicts held-out voxels of the brain best, on a coarse lattice."""
    scan = ready.scan
    voxel_mm = max(CHOICE_VOXEL_MM, *ready.lattice.spacing_mm)
    coarse, _ = lattice_for(scan, voxel_mm)
    operator = imaging_operator(coarse, scan.grid, psf_of(scan, []))
    of_scan = on_scan(Volume(ready.tissues.mask.float(), ready.lattice), scan)
    return choose_tv_weight(scan, operator, coarse, ready.noise_sd, of_scan)


def _result(
    scan: Volume, ready: PreparedScan, image: Tensor, prob: Tensor, solution: Solution, notes: list[str]
) -> SuperResolved:
    """Return image and tissues on the output grid, in units of the scan, and the residual."""
    kept = {key: value for key, value in scan.meta.items() if key not in ("Acquisition", "Simulation")}
    on_output = inner(Volume(image * ready.scale, ready.lattice, kept), ready.output_grid)
    tissues = torch.stack([inner(Volume(p, ready.lattice), ready.output_grid).data for p in prob])
    expected, sd = chi_moments(predict(ready.operator, image), ready.noise_sd)
    return SuperResolved(
        on_output,
        TissueMap(tissues, ready.tissues.names, ready.output_grid),
        cubic(Volume(scan.data, scan.grid, kept), ready.output_grid),
        Volume((ready.scan.data - expected) / sd, scan.grid, kept),
        ready.noise.sd,
        replace(solution, x=on_output.data),
        tuple(notes),
    )


def _contrast_notes(result: SuperResolved) -> tuple[str, ...]:
    """Return what is said of the contrast of the image, where every tissue is the likeliest somewhere."""
    if not bool((result.tissues.prob > 0.5).flatten(1).any(1).all()):
        return ()
    found = own_contrast(result.image, result.tissues)
    return found.message, *found.warnings


def _scarce(prob: Tensor, names: tuple[str, ...]) -> list[str]:
    """Return a note for each tissue (T, X, Y, Z) that is the likeliest in less than 1 % of the brain."""
    labels = prob.argmax(0)[prob.sum(0) > 0.5]
    counts = torch.bincount(labels, minlength=len(names)).tolist()
    return [
        f"{name} makes up {100 * count / len(labels):.2g} % of the brain found: do not trust the tissues"
        for name, count in zip(names, counts, strict=True)
        if count < 0.01 * len(labels)
    ]
