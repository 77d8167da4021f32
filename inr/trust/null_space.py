"""What the data of an operator do not determine: per voxel, and in a given image.

With A the operator, s the noise and t the prior's sd of a voxel, R = (A^T A + (s/t)^2)^-1 A^T A is the resolution
matrix of the white prior.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from statistics import mean

import torch
from torch import Tensor

from inr.scans.single import View
from inr.voxels import GRADIENT_SD
from mrcore.data.grid import Triple
from mrcore.errors import BadInputError
from mrcore.operators.linop import LinearOp, real_dtype
from mrcore.operators.pointwise import DiagonalOp
from mrcore.operators.stacked import StackedOp
from mrcore.random import seeded
from mrcore.solvers import conjugate_gradient

VOXEL_SD = 0.3
"""Assumed sd of a voxel's intensity about its surroundings, relative to WM = 1."""
TOLERANCE = 1e-3
"""Relative residual at which a posterior sample is solved."""


def joint_view(views: Sequence[View], contrast: int) -> tuple[LinearOp, float]:
    """Return the operator from the image of a contrast to all of its scans, and its noise: that of the first of them.

    Voxels of the other scans, and those that count less, are scaled so that their noise is the same; a single scan of
    which all voxels count keeps its operator.

    Raises:
        BadInputError: no scan of that contrast.
    """
    mine = [view for view in views if view.contrast == contrast]
    if not mine:
        raise BadInputError(f"no scan shows the contrast {contrast}")
    first = mine[0]
    if len(mine) == 1 and first.weight is None:
        return first.operator, first.noise_sd
    scaled = []
    for view in mine:
        factor = torch.full_like(view.scan, first.noise_sd / view.noise_sd)
        factor = factor if view.weight is None else factor * view.weight.sqrt()
        scaled.append(DiagonalOp(factor) @ view.operator)
    return StackedOp(tuple(scaled)), first.noise_sd


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
    gradient_sd: float | Tensor = GRADIENT_SD,
    max_iter: int = 100,
) -> Tensor:
    """Return the sd (X, Y, Z) of each voxel given the data: that of `posterior_samples`.

    Its relative standard error is sqrt(1 / (2 n_samples)).

    Raises:
        BadInputError: a noise or prior sd that is not positive, or no sample.
    """
    samples = posterior_samples(operator, noise_sd, spacing_mm, seed, n_samples, gradient_sd, max_iter)
    square = torch.zeros(operator.shape_in, dtype=real_dtype(operator.dtype), device=operator.device)
    for sample in samples:
        square += sample.square()
    return (square / n_samples).sqrt()


def hidden_excess(samples: Iterable[Tensor], operator: LinearOp, tested: Tensor, noise_sd: float) -> float:
    """Return the mean variance of the hidden scan voxels `tested` (bool) given those seen, in squared noise sd.

    `samples` are those of the posterior of what is seen, `operator` that of the whole scan. Noise is not in it: a
    prediction with the posterior mean misses these voxels by this much and the noise. Where it misses by more, the
    gradients of the prior are too small.

    Raises:
        BadInputError: no voxel to test.
    """
    if not bool(tested.any()):
        raise BadInputError("no hidden voxel lies in the mask")
    return mean(float((operator(x)[tested] / noise_sd).square().mean()) for x in samples)


def posterior_samples(
    operator: LinearOp,
    noise_sd: float,
    spacing_mm: Triple,
    seed: int,
    n_samples: int,
    gradient_sd: float | Tensor = GRADIENT_SD,
    max_iter: int = 100,
) -> Iterator[Tensor]:
    """Yield images (X, Y, Z) about 0 that vary as the object does given the data, under the prior of `tikhonov`.

    Gradients have `gradient_sd`, which may be a map (X, Y, Z); `inr.trust.gradients` makes one that is wide where the
    image has edges. Each sample solves the normal equations for noise in place of data and prior, so its covariance is
    that of the posterior (perturb and optimise; Papandreou & Yuille, NeurIPS 2010). It does not depend on any scan.

    Raises:
        BadInputError: a noise or prior sd that is not positive, or no sample.
    """
    dtype, device = real_dtype(operator.dtype), operator.device
    local = torch.as_tensor(gradient_sd, dtype=dtype, device=device).expand(operator.shape_in)
    _check(noise_sd, float(local.min()), n_samples)
    generator = seeded(seed, "inr.null_space:posterior_sd")
    weights = _weights(math.prod(spacing_mm) / local**2, spacing_mm)

    def normal(x: Tensor) -> Tensor:
        steps = [torch.diff(x, dim=axis) * weight for axis, weight in enumerate(weights)]
        return _add_adjoint(operator.H(operator(x)) / noise_sd**2, steps)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype).to(device)

    for _ in range(n_samples):
        rhs = operator.H(draw(operator.shape_out)) / noise_sd
        _add_adjoint(rhs, [draw(tuple(weight.shape)) * weight.sqrt() for weight in weights])
        yield conjugate_gradient(normal, rhs, None, max_iter, tolerance=TOLERANCE).x


def _weights(precision: Tensor, spacing_mm: Triple) -> list[Tensor]:
    """Return the weight of each difference of neighbours along each axis: the mean of its two ends, per mm^2."""
    return [
        0.5 * (precision.narrow(axis, 1, n := precision.shape[axis] - 1) + precision.narrow(axis, 0, n)) / spacing**2
        for axis, spacing in enumerate(spacing_mm)
    ]


def _add_adjoint(out: Tensor, steps: Sequence[Tensor]) -> Tensor:
    """Add the adjoint of the differences along each axis to `out` (X, Y, Z) in place, and return it."""
    for axis, step in enumerate(steps):
        n = step.shape[axis]
        out.narrow(axis, 0, n).sub_(step)
        out.narrow(axis, 1, n).add_(step)
    return out


def _resolved(operator: LinearOp, x: Tensor, ridge: float, max_iter: int) -> Tensor:
    """Return R x."""
    rhs = operator.H(operator(x))
    return conjugate_gradient(lambda v: operator.H(operator(v)) + ridge * v, rhs, None, max_iter, tolerance=1e-4).x


def _check(noise_sd: float, prior_sd: float, n_probes: int) -> None:
    if not (noise_sd > 0 and prior_sd > 0) or n_probes < 1:
        raise BadInputError(
            f"needs positive sds and at least one probe, got noise {noise_sd}, prior {prior_sd}, {n_probes} probes"
        )
