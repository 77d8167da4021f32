"""The weight of total variation, chosen without a truth: by voxels of the scans that the fit does not see."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from inr.fitting.tv_hessian import TvHessianSettings, tv_hessian
from inr.scans.heldout import hide, smooth_start, split
from inr.scans.stacks import Stacks, tikhonov_of
from inr.voxels import TvSettings, huber_tv
from mrcore.data.grid import Grid
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.forward import predict
from mrcore.noise import chi_moments
from mrcore.notes import Caution
from mrcore.operators.linop import LinearOp

CHOICE_VOXEL_MM = 2.0
"""Voxel of the lattice on which the weight of total variation is chosen; its unit makes it hold on all lattices."""
WEIGHTS = (0.375, 0.75, 1.5, 3.0)
"""Candidates: each twice the one before."""
N_STEPS = 40
"""Steps of each trial; it starts from a Tikhonov image, and only errors of prediction are compared."""


@dataclass(frozen=True)
class Choice:
    """A weight and why: root mean square errors `rms` of held-out voxels for each of `weights`, in noise sd.

    `rms_cubic` is that of interpolating these `n_voxels` from their neighbours. 1 would be a perfect prediction.
    """

    weight: float
    weights: tuple[float, ...]
    rms: tuple[float, ...]
    rms_cubic: float
    n_voxels: int

    @property
    def message(self) -> str:
        """What was found, for a reader; a caution where interpolation predicts better than any weight."""
        text = (
            f"weight of total variation {self.weight:.2g} per mm\N{SUPERSCRIPT TWO}, chosen by {self.n_voxels} "
            f"held-out scan voxels: predicted within {min(self.rms):.2f} noise sd, by cubic interpolation within "
            f"{self.rms_cubic:.2f}"
        )
        return text if min(self.rms) <= self.rms_cubic else Caution(text)


def choose_tv_weight(
    scan: Volume,
    operator: LinearOp,
    lattice: Grid,
    noise_sd: float,
    mask: Tensor,
    weights: Sequence[float] = WEIGHTS,
    folds: Sequence[int] = (0,),
) -> Choice:
    """Return the weight of total variation whose voxel images predict held-out voxels in `mask` best.

    `scan` has WM = 1, `operator` maps `lattice` to it, `mask` (bool) has its shape. The weight has units that do not
    change with the lattice, so a coarse one will do. Between candidates the error is taken for a parabola in
    log(weight) about the best.

    Raises:
        BadInputError: no candidates, candidates that do not rise, or no held-out voxel in the mask.
    """
    _require_rising(weights)
    splits = [split(operator, scan.data, scan.grid.spacing_mm, fold, seed=0) for fold in folds]
    tested = [each.held_out & mask for each in splits]
    n_voxels = sum(int(at.sum()) for at in tested)
    _require_some(n_voxels)
    starts = [smooth_start(each, scan.grid, lattice, noise_sd) for each in splits]
    rms = []
    for weight in weights:
        total = 0.0
        for seen, start, at in zip(splits, starts, tested, strict=True):
            settings = TvSettings(weight=weight, n_steps=N_STEPS)
            image = huber_tv(seen.operator, seen.scan, noise_sd, start, lattice.spacing_mm, settings).x
            expected, _ = chi_moments(predict(operator, image)[at], noise_sd)
            total += float((scan.data[at] - expected).square().sum())
        rms.append(math.sqrt(total / n_voxels) / noise_sd)
    cubic_error = sum(
        float((scan.data - each.filled)[at].square().sum()) for each, at in zip(splits, tested, strict=True)
    )
    best = lowest(weights, rms)
    return Choice(best, tuple(weights), tuple(rms), math.sqrt(cubic_error / n_voxels) / noise_sd, n_voxels)


def choose_tv_weight_of(
    data: Stacks, masks: Sequence[Tensor], weights: Sequence[float] = WEIGHTS, fold: int = 0
) -> Choice:
    """Return the weight of total variation whose voxel images predict held-out voxels of several scans best.

    `masks` (bool) have the shapes of the scans; poses, scales and slice weights stay as they are. Else as
    `choose_tv_weight`; errors count in the noise of their scan.

    Raises:
        BadInputError: no candidates, candidates that do not rise, or no held-out voxel in the masks.
    """
    _require_rising(weights)
    part = hide(data, data.lattice.spacing_mm, fold, seed=0)
    seen = cast("Stacks", part.data)
    tested = [h & mask & (w > 0) for h, mask, w in zip(part.held_out, masks, data.weights, strict=True)]
    n_voxels = sum(int(at.sum()) for at in tested)
    _require_some(n_voxels)
    known = [stack.scan.data for stack in seen.stacks]
    start = tikhonov_of(seen).x.clamp_min(0)
    rms = []
    for weight in weights:
        # As in a fit, where contrasts share their edges.
        settings = TvHessianSettings(math.sqrt(data.n_contrasts) * weight, hessian_weight=0.0, n_steps=N_STEPS)
        images = tv_hessian(seen, start, data.lattice.spacing_mm, settings).x
        predicted = [chi_moments(p, s.noise_sd)[0] for s, p in zip(data.stacks, data.predictions(images), strict=True)]
        rms.append(_rms(data, predicted, tested))
    return Choice(lowest(weights, rms), tuple(weights), tuple(rms), _rms(data, known, tested), n_voxels)


def _rms(data: Stacks, predicted: Sequence[Tensor], tested: Sequence[Tensor]) -> float:
    """Return the root mean square error of the scans at the voxels `tested` (bool), in noise sd."""
    parts = zip(data.stacks, predicted, tested, strict=True)
    errors = [((stack.scan.data - values) / stack.noise_sd)[at] for stack, values, at in parts]
    return float(torch.cat(errors).square().mean().sqrt())


def _require_rising(weights: Sequence[float]) -> None:
    if not weights or min(weights) <= 0 or any(b <= a for a, b in itertools.pairwise(weights)):
        raise BadInputError(f"candidate weights must be positive and rise, got {tuple(weights)}")


def _require_some(n_voxels: int) -> None:
    if not n_voxels:
        raise BadInputError("no held-out voxel lies in the mask; give a larger mask or more folds")


def lowest(weights: Sequence[float], errors: Sequence[float]) -> float:
    """Return where the parabola in log(weight) through the least error and its neighbours has its minimum.

    At either end of the candidates it is the end itself.
    """
    at = int(np.argmin(errors))
    if not 0 < at < len(weights) - 1:
        return float(weights[at])
    places, values = np.log(weights[at - 1 : at + 2]), np.array(errors[at - 1 : at + 2])
    curve = np.polyfit(places, values, 2)
    return float(np.exp(-curve[1] / (2 * curve[0])))
