"""One fit of a prepared scan or of a part of it, on any device: what goes in and what comes out lie on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inr.fitting.choice import Choice
from inr.fitting.fit import Fit, FitSettings, fit
from inr.fitting.prior import PlugAndPlay, Prior
from inr.fitting.tissues import Resegment
from inr.losses import rician_misfit
from inr.scans.heldout import Split, smooth_start
from inr.scans.single import Misfit, OneScan, with_bias
from inr.trust.ensemble import FitOnce
from inr.voxels import tikhonov
from mrcore.data.grid import Grid
from mrcore.data.volume import Volume
from mrcore.denoisers.files import Denoiser, has_bf16, shipped_denoiser
from mrcore.errors import BadInputError
from mrcore.operators.linop import LinearOp
from mrcore.spatial.registration import RegisterSettings, register
from mrcore.spatial.resampling import resample
from mrkit.superresolution.lattice import on_scan
from mrkit.superresolution.prepare import PreparedScan

CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class FitPlan:
    """All that decides the fit of a prepared scan but its seed.

    Attributes:
        settings: of the fit.
        prior: what pulls the image towards likely ones; it works on `device`.
        likelihood: of the scan.
        guess: another image (X, Y, Z) on the lattice, WM = 1, whose detail a start has where the scan shows none; see
            `laid_over`. None for a start from the scan alone.
        device: where fits run; all else stays on the CPU.
    """

    settings: FitSettings
    prior: Prior | None = None
    likelihood: Misfit = rician_misfit
    guess: Tensor | None = None
    device: torch.device = CPU


def settings_for(prior: Prior | None, choose: Callable[[], Choice], notes: list[str]) -> FitSettings:
    """Return settings with the weight of total variation that suits the scans; `notes` learn why.

    A prior takes the place of total variation: then nothing is chosen.
    """
    if prior is not None:
        return FitSettings()
    choice = choose()
    notes.append(choice.message)
    return replace(FitSettings(), tv_weight=choice.weight)


def fit_prepared(ready: PreparedScan, seed: int, plan: FitPlan, *, free_of_bias: bool = False) -> Fit:
    """Fit one prepared scan from its start; `free_of_bias` finds a smooth receive field with the image."""
    data, start = OneScan(ready.scan.data, ready.operator, ready.noise_sd, plan.likelihood), ready.start[None]
    if free_of_bias:
        data, start = with_bias(data, start, ready.tissues.prob, ready.lattice.spacing_mm)
    return fit_data(ready, data, start, seed, plan, ready.resegment)


def refit(ready: PreparedScan, plan: FitPlan) -> FitOnce:
    """Return what fits a part of the scan as `fit_prepared` fits the whole; tissues are not segmented again."""

    def fit_once(seen: Split) -> Tensor:
        if plan.guess is None:
            start = smooth_start(seen, ready.scan.grid, ready.lattice, ready.noise_sd)
        else:
            start = started_from(plan.guess, seen.operator, seen.scan, ready.noise_sd, ready.lattice)
        part = OneScan(seen.scan, seen.operator, ready.noise_sd, plan.likelihood)
        return fit_data(ready, part, start[None], seen.seed, plan, None).image

    return fit_once


def fit_data(
    ready: PreparedScan, data: OneScan, start: Tensor, seed: int, plan: FitPlan, resegment: Resegment | None
) -> Fit:
    """Fit `data` from `start` (1, X, Y, Z) on the plan's device, on the lattice and with the tissues of `ready`."""
    there = ready.to(plan.device)
    done = fit(
        data.to(plan.device),
        ready.lattice,
        start.to(plan.device),
        there.foreground,
        there.tissues,
        seed,
        plan.settings,
        None if resegment is None else there.resegment,
        plan.prior,
    )
    return done.to(CPU)


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


RIGID = RegisterSettings(dof=6, levels_mm=(8.0, 4.0))


def laid_over(ready: PreparedScan, init: Volume, notes: list[str]) -> Tensor:
    """Return `init` (X, Y, Z; WM = 1) as a guess of the scan's image; `notes` learn how well it fits.

    It is moved rigidly onto the scan's image, and its intensities are fitted linearly to the scan through the forward
    model.

    Raises:
        BadInputError: an image that has nothing in common with the scan.
    """
    fixed = Volume(ready.start, ready.lattice)
    found = register(init, fixed, RIGID, fixed_mask=ready.tissues.mask)
    moved = Grid(init.grid.shape, found.motion @ init.grid.affine)
    there = resample(Volume(init.data, moved), ready.lattice, order=3).data.clamp_min(0)
    of_scan = on_scan(Volume(ready.tissues.mask.float(), ready.lattice), ready.scan)
    gain, offset, share = _linear(ready.operator(there)[of_scan], ready.scan.data[of_scan])
    notes.append(
        f"started from another image, laid over the scan ({found.message}); through the forward model it explains "
        f"{100 * share:.0f} % of the scan's variance; detail that the scan does not show may be that image's"
    )
    return (gain * there + offset).clamp_min(0) * ready.foreground


def started_from(guess: Tensor, operator: LinearOp, scan: Tensor, noise_sd: float, lattice: Grid) -> Tensor:
    """Return `guess` (X, Y, Z) without what `scan` says against it: Tikhonov's solution for the difference is added.

    Of a part of a scan (see `inr.scans.heldout`) the start has nothing of what is hidden.
    """
    blank = torch.zeros_like(guess)
    change: Tensor = tikhonov(operator, scan - operator(guess), noise_sd, blank, lattice.spacing_mm).x
    return (guess + change).clamp_min(0)


def warm_started(ready: PreparedScan, guess: Tensor) -> PreparedScan:
    """Return the scan with a start that has what the scan does not show from the `guess` of `laid_over`."""
    return replace(ready, start=started_from(guess, ready.operator, ready.scan.data, ready.noise_sd, ready.lattice))


def _linear(predicted: Tensor, seen: Tensor) -> tuple[float, float, float]:
    """Return gain and offset of the least-squares line from `predicted` to `seen`, and the share of variance."""
    x, y = predicted.double() - predicted.double().mean(), seen.double() - seen.double().mean()
    power, both, total = float(x.square().sum()), float((x * y).sum()), float(y.square().sum())
    if not power > 0 or not both > 0:
        raise BadInputError("the image to start from has nothing in common with the scan; is it of the same contrast?")
    gain = both / power
    offset = float(seen.double().mean()) - gain * float(predicted.double().mean())
    return gain, offset, both**2 / (power * total)
