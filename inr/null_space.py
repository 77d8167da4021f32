"""What the data of an operator do not determine: per voxel, and in a given image.

With A the operator, s the noise and t the prior's sd of a voxel, R = (A^T A + (s/t)^2)^-1 A^T A is the resolution
matrix of the white prior: its diagonal is the share of a voxel's prior variance that the data remove, exactly.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inr.baselines import GRADIENT_SD, add_gradient_normal
from mrcore.errors import BadInputError
from mrcore.grid import Triple
from mrcore.linop import LinearOp, real_dtype
from mrcore.noise import seeded
from mrcore.solve import conjugate_gradient

VOXEL_SD = 0.3
"""Assumed sd of a voxel's intensity about its surroundings, relative to WM = 1."""


def null_share(
    operator: LinearOp, noise_sd: float, seed: int, n_probes: int = 16, prior_sd: float = VOXEL_SD, max_iter: int = 100
) -> Tensor:
    """Return the share (X, Y, Z) of each voxel's prior variance that the data leave: 1 - diag R, 0 to 1.

    The diagonal is that of Rademacher probes v: the mean of v * (R v) (Bekas et al., Applied Numerical Mathematics
    2007;57:1214); its standard error is at most 0.5 / sqrt(n_probes). It does not depend on any scan. Operators are
    real.

    Raises:
        BadInputError: a noise or prior sd that is not positive, or no probe.
    """
    _check(noise_sd, prior_sd, n_probes)
    generator = seeded(seed, "inr.null_space:null_share")
    total = torch.zeros(operator.shape_in, dtype=real_dtype(operator.dtype), device=operator.device)
    for _ in range(n_probes):
        probe = (2 * torch.randint(2, operator.shape_in, generator=generator) - 1).to(total)
        total += probe * _resolved(operator, probe, (noise_sd / prior_sd) ** 2, max_iter)
    return (1 - total / n_probes).clamp(0, 1)


def null_component(
    operator: LinearOp, image: Tensor, noise_sd: float, prior_sd: float = VOXEL_SD, max_iter: int = 100
) -> Tensor:
    """Return the part (X, Y, Z) of `image` that the data cannot see, image - R image: what its prior has put there.

    Raises:
        BadInputError: a noise or prior sd that is not positive.
    """
    _check(noise_sd, prior_sd, 1)
    return image - _resolved(operator, image, (noise_sd / prior_sd) ** 2, max_iter)


def posterior_sd(
    operator: LinearOp,
    noise_sd: float,
    spacing_mm: Triple,
    seed: int,
    n_samples: int = 16,
    gradient_sd: float = GRADIENT_SD,
    max_iter: int = 100,
) -> Tensor:
    """Return the sd (X, Y, Z) of each voxel given the data, under the prior of `tikhonov`: gradients of `gradient_sd`.

    Each sample solves the normal equations for noise in place of data and prior, so its covariance is that of the
    posterior (perturb and optimise; Papandreou & Yuille, NeurIPS 2010); the relative standard error of the sd is
    sqrt(1 / (2 n_samples)). It does not depend on any scan.

    Raises:
        BadInputError: a noise or prior sd that is not positive, or no sample.
    """
    _check(noise_sd, gradient_sd, n_samples)
    generator = seeded(seed, "inr.null_space:posterior_sd")
    weight = math.prod(spacing_mm) / gradient_sd**2
    dtype, device = real_dtype(operator.dtype), operator.device

    def normal(x: Tensor) -> Tensor:
        return add_gradient_normal(operator.H(operator(x)) / noise_sd**2, x, weight, spacing_mm)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype).to(device)

    square = torch.zeros(operator.shape_in, dtype=dtype, device=device)
    for _ in range(n_samples):
        rhs = operator.H(draw(operator.shape_out)) / noise_sd
        for axis, spacing in enumerate(spacing_mm):
            n = operator.shape_in[axis] - 1
            noise = draw(tuple(n if a == axis else m for a, m in enumerate(operator.shape_in)))
            noise *= math.sqrt(weight) / spacing
            rhs.narrow(axis, 0, n).sub_(noise)
            rhs.narrow(axis, 1, n).add_(noise)
        square += conjugate_gradient(normal, rhs, None, max_iter, tolerance=1e-3).x.square()
    return (square / n_samples).sqrt()


def _resolved(operator: LinearOp, x: Tensor, ridge: float, max_iter: int) -> Tensor:
    """Return R x."""
    rhs = operator.H(operator(x))
    return conjugate_gradient(lambda v: operator.H(operator(v)) + ridge * v, rhs, None, max_iter, tolerance=1e-4).x


def _check(noise_sd: float, prior_sd: float, n_probes: int) -> None:
    if not (noise_sd > 0 and prior_sd > 0) or n_probes < 1:
        raise BadInputError(
            f"needs positive sds and at least one probe, got noise {noise_sd}, prior {prior_sd}, {n_probes} probes"
        )
