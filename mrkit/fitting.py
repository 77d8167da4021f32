"""One fit of a prepared scan or of a part of it, on any device: what goes in and what comes out lie on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inr.choice import Choice
from inr.data import Misfit, OneScan, with_bias
from inr.fit import Fit, FitSettings, fit
from inr.heldout import Split, smooth_start
from inr.loss import rician_misfit
from inr.prior import Prior
from inr.tissues import Resegment
from inr.uncertainty import FitOnce
from mrkit.prepare import PreparedScan
from mrkit.warm_start import started_from

CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class FitPlan:
    """All that decides the fit of a prepared scan but its seed.

    Attributes:
        settings: of the fit.
        prior: what pulls the image towards likely ones; it works on `device`.
        likelihood: of the scan.
        guess: another image (X, Y, Z) on the lattice, WM = 1, whose detail a start has where the scan shows none; see
            `mrkit.warm_start`. None for a start from the scan alone.
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
