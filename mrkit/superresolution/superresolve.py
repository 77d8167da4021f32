"""The verb `superresolve`: one ultra-low-field scan in, a finer image and its tissues out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inr.fitting.choice import CHOICE_VOXEL_MM, Choice, choose_tv_weight
from inr.fitting.fit import Fit, FitSettings
from inr.fitting.prior import Prior
from inr.losses import rician_misfit
from inr.rendering import FittedField, fitted_field
from inr.scans.single import BiasedScan, Misfit
from inr.voxels import cubic
from mrcore.data.volume import TissueMap, Volume
from mrcore.forward import imaging_operator, predict
from mrcore.noise import residual_z
from mrcore.operators.pointwise import DiagonalOp
from mrcore.segmentation.tissues import Segmenter
from mrcore.solvers import Solution
from mrcore.spatial.cropping import inner
from mrkit.anatomy.brain import usable
from mrkit.devices import device_of
from mrkit.superresolution.comparison import Comparison, compare
from mrkit.superresolution.contrast import own_contrast
from mrkit.superresolution.fitting import CPU, FitPlan, fit_prepared, laid_over, refit, settings_for, warm_started
from mrkit.superresolution.lattice import lattice_for, on_scan
from mrkit.superresolution.prepare import PreparedScan, prepare, psf_of
from mrkit.superresolution.trust import KeepMember, Trust, kept_members, trust


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
    device: str | torch.device = CPU,
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
        likelihood: of the scan; `inr.losses.absolute_misfit` withstands spikes and ghosts better than the Rician one.
        free_of_bias: whether a smooth receive field is found with the image and taken out of it.
        init: image to start from, of this person or a template; it is laid over the scan first.
        n_members: fits of the ensemble that says how far the result can be trusted; even, 0 for none.
        compared: priors by name; all methods, and the default with each of these, are run and judged, from the scan
            alone (no `init`) and with the Rician likelihood. None: no such.
        keep_member: what keeps finished members and methods.
        preview: return the Tikhonov image, without a fit.
        device: torch device of the fits, such as `cuda`; priors must work on it. All that precedes and follows a fit
            runs on the CPU, where the result is.

    Raises:
        BadInputError: a scan that cannot be used, or whose brain cannot be found, or a device that is not there.
        GridMismatchError: mask or tissues on another grid.
    """
    place = device_of(device)
    scan = usable(scan)
    plain = prepare(scan, voxel_mm=voxel_mm, mask=mask, tissues=tissues, segmenter=segmenter, segment_start=not preview)
    notes = list(plain.notes)
    guess = None if init is None else laid_over(plain, usable(init), notes)
    ready = plain if guess is None else warm_started(plain, guess)
    if preview:
        return _preview(scan, ready, notes)
    settings = settings or settings_for(prior, lambda: chosen_weight(ready, place), notes)
    plan = FitPlan(settings, prior, likelihood, guess, place)
    fitted = fit_prepared(ready, seed, plan, free_of_bias=free_of_bias)
    if (bias := _bias_of(fitted)) is not None:
        # What follows, residuals, trust and comparison, knows the field.
        plain, ready = (_biased(each, bias) for each in (plain, ready))
        plan = replace(plan, guess=None if guess is None else guess / bias)
    notes += _fit_notes(fitted, ready, bias)
    found: Trust | None = None
    if n_members:
        found = trust(ready, fitted.image, kept_members(refit(ready, plan), keep_member), n_members, seed)
        notes += found.notes
    result = _result(scan, ready, fitted.image, fitted.prob, fitted.solution, notes)
    table: Comparison | None = None
    if compared is not None:
        own = TissueMap(fitted.prob, ready.tissues.names, ready.lattice)
        table = compare(plain, plan.settings, seed, compared, own, keep_member, place)
    return replace(
        result,
        notes=(*result.notes, *_contrast_notes(result)),
        settings=plan.settings,
        field=fitted_field(fitted, plan.settings, ready.tissues.names, ready.scale),
        trust=found,
        comparison=table,
    )


def _preview(scan: Volume, ready: PreparedScan, notes: list[str]) -> SuperResolved:
    """Return the start of the fit as the result."""
    said = [*notes, "preview: a Tikhonov image, without a fit"]
    ended = Solution(ready.start, True, 0, (), "preview: no fit")
    return _result(scan, ready, ready.start, ready.tissues.prob, ended, said)


def chosen_weight(ready: PreparedScan, device: torch.device = CPU) -> Choice:
    """Return the weight of total variation that predicts held-out voxels of the brain best, on a coarse lattice."""
    scan = ready.scan
    voxel_mm = max(CHOICE_VOXEL_MM, *ready.lattice.spacing_mm)
    coarse, _ = lattice_for(scan, voxel_mm)
    operator = imaging_operator(coarse, scan.grid, psf_of(scan, []), device=device)
    of_scan = on_scan(Volume(ready.tissues.mask.float(), ready.lattice), scan).to(device)
    there = Volume(scan.data.to(device), scan.grid)
    return choose_tv_weight(there, operator, coarse, ready.noise_sd, of_scan)


def _bias_of(fitted: Fit) -> Tensor | None:
    """Return the receive field (X, Y, Z) that was found with the image; None where none was sought."""
    data = fitted.data
    return data.bias.field() if isinstance(data, BiasedScan) and data.bias is not None else None


def _biased(ready: PreparedScan, bias: Tensor) -> PreparedScan:
    """Return the scan as one of an image times the receive field `bias` (X, Y, Z)."""
    operator = ready.operator @ DiagonalOp(bias.to(ready.operator.dtype))
    return replace(ready, operator=operator, start=ready.start / bias)


def _fit_notes(fitted: Fit, ready: PreparedScan, bias: Tensor | None) -> list[str]:
    """Return what a reader must know of the fit."""
    notes = []
    if bias is not None:
        inside = bias[ready.tissues.mask]
        notes.append(f"a smooth receive field of {float(inside.min()):.2f} to {float(inside.max()):.2f} was taken out")
    if not fitted.solution.converged:
        notes.append(f"the fit had not settled: {fitted.solution.message}")
    return [*notes, *_scarce(fitted.prob, ready.tissues.names)]


def _result(
    scan: Volume, ready: PreparedScan, image: Tensor, prob: Tensor, solution: Solution, notes: list[str]
) -> SuperResolved:
    """Return image and tissues on the output grid, in units of the scan, and the residual."""
    kept = {key: value for key, value in scan.meta.items() if key not in ("Acquisition", "Simulation")}
    on_output = inner(Volume(image * ready.scale, ready.lattice, kept), ready.output_grid)
    tissues = torch.stack([inner(Volume(p, ready.lattice), ready.output_grid).data for p in prob])
    residual = residual_z(ready.scan.data, predict(ready.operator, image), ready.noise_sd)
    return SuperResolved(
        on_output,
        TissueMap(tissues, ready.tissues.names, ready.output_grid),
        cubic(Volume(scan.data, scan.grid, kept), ready.output_grid),
        Volume(residual, scan.grid, kept),
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
