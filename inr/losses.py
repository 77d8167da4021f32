"""Terms of the fit: Rician data term through the forward model, total variation, Dice + cross-entropy."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from mrcore.data.grid import Triple
from mrcore.forward import predict
from mrcore.noise import rician_nll
from mrcore.operators.linop import LinearOp


def data_term(operator: LinearOp, image: Tensor, scan: Tensor, noise_sd: float) -> Tensor:
    """Return the summed Rician negative log likelihood of `scan` given the object `image`.

    The prediction is `mrcore.forward.predict`, the same call that makes simulated scans.
    """
    return rician_misfit(predict(operator, image), scan, noise_sd)


class Misfit(Protocol):
    """From a noise-free prediction of a scan, the scan and its noise per real channel to a negative log likelihood."""

    def __call__(self, predicted: Tensor, scan: Tensor, noise_sd: float, weight: Tensor | None = None, /) -> Tensor:
        """Return the sum over all voxels, each times its `weight` (None: 1)."""


def rician_misfit(predicted: Tensor, scan: Tensor, noise_sd: float, weight: Tensor | None = None, /) -> Tensor:
    """Return the summed Rician negative log likelihood of `scan` given the noise-free `predicted` one."""
    each = rician_nll(predicted, scan, noise_sd)
    return each.sum() if weight is None else (weight * each).sum()


def absolute_misfit(predicted: Tensor, scan: Tensor, noise_sd: float, weight: Tensor | None = None, /) -> Tensor:
    """Return the summed absolute error over sd / sqrt 2: the likelihood of Laplace noise of the same sd."""
    each = (predicted - scan).abs()
    return (each.sum() if weight is None else (weight * each).sum()) * (math.sqrt(2) / noise_sd)


def total_variation(image: Tensor, spacing_mm: Triple, smoothing: float) -> Tensor:
    """Return the isotropic total variation of (X, Y, Z): sum over voxels of sqrt(|grad|^2 + smoothing^2) dV.

    Of several images (C, X, Y, Z) it is the vectorial one, |grad|^2 summed over them: contrasts share their edges, and
    a second one costs little where the first has one (Bresson & Chan, Inverse Probl Imaging 2008;2:455).

    The gradient is per mm (forward differences, 0 at the far faces) and dV in mm^3, so the value does not change with
    the lattice. `smoothing` (per mm) rounds the corner at zero: quadratic below, linear above (Huber-like).
    """
    images = image.reshape(-1, *image.shape[-3:])
    square = torch.full_like(images[0], smoothing**2)
    for axis, spacing in enumerate(spacing_mm):
        n = images.shape[1 + axis]
        step = (torch.diff(images, dim=1 + axis) / spacing).square().sum(0)
        square = square + torch.cat([step, torch.zeros_like(images[0].narrow(axis, n - 1, 1))], axis)
    return square.sqrt().sum() * math.prod(spacing_mm)


def dice_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return mean cross-entropy plus mean soft Dice loss of `logits` (T, n) against probabilities `target` (T, n)."""
    log_prob = torch.log_softmax(logits, 0)
    prob = log_prob.exp()
    entropy = -(target * log_prob).sum(0).mean()
    overlap = 2 * (prob * target).sum(1) / (prob.sum(1) + target.sum(1)).clamp_min(1e-6)
    return entropy + (1 - overlap.mean())
