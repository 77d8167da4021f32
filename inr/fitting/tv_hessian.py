"""Voxel baseline with two orders: Huber total variation and the variation of the gradient, through the operator.

The second term (bounded Hessian; Lysaker, Lundervold & Tai, IEEE TIP 2003;12:1579; with the first: Papafitsoros &
Schoenlieb, J Math Imaging Vis 2014;48:308) favours slopes where total variation alone makes steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inr.losses import total_variation
from inr.scans.single import Data
from inr.voxels import descended
from mrcore.data.grid import Triple
from mrcore.errors import BadInputError
from mrcore.solvers import Solution


@dataclass(frozen=True)
class TvHessianSettings:
    """Weights of the gradient (per mm^2) and of the Hessian (per mm), WM = 1; corners rounded below `smoothing`."""

    weight: float = 1.25
    hessian_weight: float = 0.1
    smoothing: float = 0.01
    n_steps: int = 80
    learning_rate: float = 0.03

    def __post_init__(self) -> None:
        if min(self.weight, self.hessian_weight) < 0 or self.n_steps < 1:
            raise BadInputError(f"TV + Hessian needs weights of at least 0 and one step or more, got {self}")
        if min(self.smoothing, self.learning_rate) <= 0:
            raise BadInputError(f"TV + Hessian needs a positive smoothing and a positive rate, got {self}")


def for_noise(settings: TvHessianSettings, noise_sd: float) -> TvHessianSettings:
    """Return the settings with both weights times (0.02 / `noise_sd`)^0.6, WM = 1.

    With the noise in the data term a weight should serve all scans, but the best falls with noise: gradients of a
    brain are no Laplace variables. On a piece of a head and one of the ICBM-152 template, which no benchmark scores,
    (1.25, 0.1) was best at a noise of 0.02, and (0.75, 0.05 to 0.1) at 0.05: what gains there is the smaller weight of
    the gradient. The Hessian is worth 0.1 to 0.3 dB at either noise, on the brains of the benchmark.

    Raises:
        BadInputError: a noise that is not positive.
    """
    if not noise_sd > 0:
        raise BadInputError(f"weights follow a positive noise sd, got {noise_sd}")
    factor = float((0.02 / noise_sd) ** 0.6)
    return replace(settings, weight=factor * settings.weight, hessian_weight=factor * settings.hessian_weight)


def tv_hessian(data: Data, start: Tensor, spacing_mm: Triple, settings: TvHessianSettings | None = None) -> Solution:
    """Minimise the data's negative log likelihood plus both variations over voxels by Adam, from `start` (C, X, Y, Z).

    The data's own unknowns stay as they are given.
    """
    chosen = settings or TvHessianSettings()

    def objective(images: Tensor) -> Tensor:
        loss = data.misfit(images) + chosen.weight * total_variation(images, spacing_mm, chosen.smoothing)
        if chosen.hessian_weight > 0:
            loss = loss + chosen.hessian_weight * hessian_variation(images, spacing_mm, chosen.smoothing)
        return loss

    return descended(objective, start, data.n_values, chosen.n_steps, chosen.learning_rate, "TV + Hessian")


def hessian_variation(image: Tensor, spacing_mm: Triple, smoothing: float) -> Tensor:
    """Return the sum over voxels of sqrt(|Hessian|^2 + smoothing^2) dV for (..., X, Y, Z), with the Frobenius norm.

    Second derivatives are per mm^2, central along an axis and forward across two; beyond a face the image goes on as
    it ends. dV is in mm^3 and `smoothing` per mm^2.
    """
    square = torch.full_like(image, smoothing**2)
    for axis, spacing in enumerate(spacing_mm, start=-3):
        step = torch.diff(image, dim=axis) / spacing
        edge = torch.zeros_like(image.narrow(axis, 0, 1))
        square = square + (torch.diff(torch.cat([edge, step, edge], axis), dim=axis) / spacing).square()
        step = torch.cat([step, edge], axis)
        for other in range(axis + 1, 0):
            mixed = torch.diff(step, dim=other) / spacing_mm[other]
            last = torch.zeros_like(step.narrow(other, 0, 1))
            square = square + 2 * torch.cat([mixed, last], other).square()
    return square.sqrt().sum() * math.prod(spacing_mm)
