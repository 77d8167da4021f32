"""The weight of total variation, chosen without a truth: by voxels of the scan that the fit does not see."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inr.baselines import TvSettings, cubic, huber_tv, tikhonov
from inr.heldout import Split, split
from mrcore.errors import BadInputError
from mrcore.forward import predict
from mrcore.grid import Grid
from mrcore.linop import LinearOp
from mrcore.noise import chi_moments
from mrcore.volume import Volume

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
        """What was found, for a reader."""
        return (
            f"weight of total variation {self.weight:.2g} per mm\N{SUPERSCRIPT TWO}, chosen by {self.n_voxels} "
            f"held-out scan voxels: predicted within {min(self.rms):.2f} noise sd, by cubic interpolation within "
            f"{self.rms_cubic:.2f}"
        )


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
    if not weights or min(weights) <= 0 or any(b <= a for a, b in itertools.pairwise(weights)):
        raise BadInputError(f"candidate weights must be positive and rise, got {tuple(weights)}")
    splits = [split(operator, scan.data, scan.grid.spacing_mm, fold, seed=0) for fold in folds]
    tested = [each.held_out & mask for each in splits]
    n_voxels = sum(int(at.sum()) for at in tested)
    if not n_voxels:
        raise BadInputError("no held-out voxel lies in the mask; give a larger mask or more folds")
    starts = [_start(each, scan.grid, lattice, noise_sd) for each in splits]
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


def _start(seen: Split, scan_grid: Grid, lattice: Grid, noise_sd: float) -> Tensor:
    begin = cubic(Volume(seen.filled, scan_grid), lattice).data
    found: Tensor = tikhonov(seen.operator, seen.scan, noise_sd, begin, lattice.spacing_mm).x
    return torch.clamp_min(found, 0)
