"""One fit of prepared scans or of a part of them, on any device: what goes in and what comes out lie on the CPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inr.fitting.choice import CHOICE_VOXEL_MM, Choice, choose_tv_weight, choose_tv_weight_of
from inr.fitting.fit import Fit, FitSettings, fit
from inr.fitting.prior import PlugAndPlay, Prior
from inr.losses import Misfit, rician_misfit
from inr.scans.heldout import Part, Split, smooth_start
from inr.scans.single import OneScan, with_bias
from inr.scans.stacks import Stacks, tikhonov_of, with_biases
from inr.trust.ensemble import FitOnce
from inr.voxels import tikhonov
from mrcore.data.grid import Grid
from mrcore.data.volume import Volume
from mrcore.denoisers.files import Denoiser, has_bf16, shipped_denoiser
from mrcore.errors import BadInputError
from mrcore.forward import covering_grid, imaging_operator
from mrcore.spatial.registration import RegisterSettings, register
from mrcore.spatial.resampling import resample
from mrkit.anatomy.resolution import psf_of
from mrkit.superresolution.lattice import lattice_for, on_scan
from mrkit.superresolution.prepare import Prepared

CPU = torch.device("cpu")
RIGID = RegisterSettings(dof=6, levels_mm=(8.0, 4.0))


@dataclass(frozen=True, eq=False)
class Guess:
    """Another image on the lattice (X, Y, Z; WM = 1), whose detail the image of a contrast starts with.

    It fills in what the scans of that contrast do not show.
    """

    image: Tensor
    contrast: int = 0


@dataclass(frozen=True, eq=False)
class FitPlan:
    """All that decides the fit of prepared scans but its seed.

    Attributes:
        settings: of the fit.
        prior: what pulls the images towards likely ones; it works on `device`.
        likelihood: of the scans.
        bias_field: whether a smooth receive field, one a contrast, is found with the images.
        guess: what a start has where the scans show nothing; None for a start from the scans alone.
        device: where fits run; all else stays on the CPU.
    """

    settings: FitSettings
    prior: Prior | None = None
    likelihood: Misfit = rician_misfit
    bias_field: bool = False
    guess: Guess | None = None
    device: torch.device = CPU


def chosen_weight(ready: Prepared, device: torch.device = CPU) -> Choice:
    """Return the weight of total variation that predicts held-out voxels of the brain best, on a coarse lattice."""
    voxel_mm = max(CHOICE_VOXEL_MM, *ready.lattice.spacing_mm)
    masks = [mask.to(device) for mask in brain_masks(ready)]
    if isinstance(ready.data, Stacks):
        data = replace(ready.data, lattice=covering_grid(ready.lattice, voxel_mm), support=None)
        return choose_tv_weight_of(data.to(device), masks)
    scan = ready.scans[0]
    coarse, _ = lattice_for(scan, voxel_mm)
    operator = imaging_operator(coarse, scan.grid, psf_of(scan)[0], device=device)
    there = Volume(scan.data.to(device), scan.grid)
    return choose_tv_weight(there, operator, coarse, ready.data.noise_sd, masks[0])


def brain_masks(ready: Prepared) -> list[Tensor]:
    """Return the voxels (bool) of each scan that lie in the brain."""
    brain = Volume(ready.tissues.mask.float(), ready.lattice)
    return [on_scan(brain, ready.placed(number)) for number in range(len(ready.scans))]


def fit_prepared(ready: Prepared, seed: int, plan: FitPlan) -> Fit:
    """Fit prepared scans from their start."""
    data, start = _with_likelihood(ready.data, plan), ready.start
    if plan.bias_field and isinstance(data, OneScan):
        data, start = with_bias(data, start, ready.tissues.prob, ready.lattice.spacing_mm)
    elif plan.bias_field and isinstance(data, Stacks):
        data, start = with_biases(data, start, ready.tissues.prob)
    return fit_data(ready, data, start, seed, plan)


def refit(ready: Prepared, plan: FitPlan) -> FitOnce:
    """Return what fits a part of the scans as `fit_prepared` fits the whole; tissues are not segmented again."""

    def fit_once(seen: Part) -> Tensor:
        start = part_start(ready, seen)
        if plan.guess is not None:
            start = started_from(plan.guess, seen.data, start, ready.lattice)
        return fit_data(ready, _with_likelihood(seen.data, plan), start, seen.seed, plan, resegment=False).images

    return fit_once


def part_start(ready: Prepared, seen: Part) -> Tensor:
    """Return Tikhonov images (C, X, Y, Z) of what may be seen of the scans, on the lattice of `ready`."""
    if isinstance(seen.data, Stacks):
        return tikhonov_of(seen.data).x.clamp_min(0) * ready.foreground
    one = Split(seen.data.operator, seen.data.scan, seen.filled[0], seen.held_out[0], seen.seed)
    return smooth_start(one, ready.scans[0].grid, ready.lattice, seen.data.noise_sd)[None]


def fit_data(
    ready: Prepared, data: OneScan | Stacks, start: Tensor, seed: int, plan: FitPlan, *, resegment: bool = True
) -> Fit:
    """Fit `data` from `start` (C, X, Y, Z) on the plan's device, on the lattice and with the tissues of `ready`."""
    there = ready.to(plan.device)
    done = fit(
        data.to(plan.device),
        ready.lattice,
        start.to(plan.device),
        there.foreground,
        there.tissues,
        seed,
        plan.settings,
        there.resegment if resegment else None,
        plan.prior,
    )
    return done.to(CPU)


def align_guess(ready: Prepared, init: Volume) -> tuple[Guess, str]:
    """Return `init` as a guess of the image whose scans it explains best, and a note on how well it does.

    It is moved rigidly onto the first image, and its intensities are fitted linearly to the scans of each contrast
    through the forward model.

    Raises:
        BadInputError: an image that has nothing in common with the scans.
    """
    fixed = Volume(ready.start[0], ready.lattice)
    found = register(init, fixed, RIGID, fixed_mask=ready.tissues.mask)
    placed = Grid(init.grid.shape, found.motion @ init.grid.affine)
    there = resample(Volume(init.data, placed), ready.lattice, order=3).data.clamp_min(0)
    masks, lines = brain_masks(ready), []
    for contrast in range(len(ready.contrasts)):
        view, mask = ready.data.views()[ready.lead(contrast)], masks[ready.lead(contrast)]
        lines.append(_linear(view.operator(there)[mask], view.scan[mask]))
    best = max(range(len(lines)), key=lambda contrast: lines[contrast].share)
    line = lines[best]
    if not line.share > 0:
        raise BadInputError("the image to start from has nothing in common with the scan; is it of the same contrast?")
    whose = "the scan's" if len(lines) == 1 else f"the {ready.contrasts[best]} scan's"
    note = (
        f"started from another image, laid over the scan ({found.message}); through the forward model it explains "
        f"{100 * line.share:.0f} % of {whose} variance; detail that the scan does not show may be that image's"
    )
    return Guess((line.gain * there + line.offset).clamp_min(0) * ready.foreground, best), note


def started_from(guess: Guess, data: OneScan | Stacks, plain: Tensor, lattice: Grid) -> Tensor:
    """Return starts (C, X, Y, Z) that have the detail of the `guess` where `data` say nothing against it.

    Tikhonov's solution for the difference is added to it. Of a part of the scans (see `inr.scans.heldout`) the start
    has nothing of what is hidden. Images of other contrasts start as in `plain`, that is without a guess.
    """
    begin = plain.clone()
    if isinstance(data, OneScan):
        left, blank = data.scan - data.model(guess.image), torch.zeros_like(guess.image)
        change: Tensor = tikhonov(data.model, left, data.noise_sd, blank, lattice.spacing_mm).x
    else:
        begin[guess.contrast] = guess.image
        change = tikhonov_of(data, about=begin).x[guess.contrast]
    begin[guess.contrast] = (guess.image + change).clamp_min(0)
    return begin


def denoiser_prior(denoiser: Denoiser | None = None, device: str | torch.device = "cpu") -> PlugAndPlay:
    """Return the plug-and-play prior of a 3-D `denoiser`, by default the shipped one.

    It computes on `device`, wherever images are, and in bfloat16 where the device has it.

    Raises:
        BadInputError: a denoiser of slices; a volume needs one of three dimensions.
    """
    chosen = denoiser or shipped_denoiser(3)
    if chosen.net.settings.n_dims != 3:
        raise BadInputError(
            f"the prior of a volume needs a 3-D denoiser, got a {chosen.net.settings.n_dims}-D one; "
            "train it with `mrkit train-denoiser --dims 3`"
        )
    return PlugAndPlay(replace(chosen.to(device), bf16=has_bf16(device)))


def _with_likelihood(data: OneScan | Stacks, plan: FitPlan) -> OneScan | Stacks:
    return data if data.likelihood is plan.likelihood else replace(data, likelihood=plan.likelihood)


@dataclass(frozen=True)
class _Line:
    """The least-squares line from predicted to seen values, and the share of variance that it explains."""

    gain: float
    offset: float
    share: float


def _linear(predicted: Tensor, seen: Tensor) -> _Line:
    """Return the line; a share of 0 where there is none that rises."""
    x, y = predicted.double() - predicted.double().mean(), seen.double() - seen.double().mean()
    power, both, total = float(x.square().sum()), float((x * y).sum()), float(y.square().sum())
    if not power > 0 or not both > 0:
        return _Line(0.0, 0.0, 0.0)
    gain = both / power
    offset = float(seen.double().mean()) - gain * float(predicted.double().mean())
    return _Line(gain, offset, both**2 / (power * total))
