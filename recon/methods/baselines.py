"""Coefficient images by the established ways: density-compensated adjoint, least squares, total variation, low rank.

All minimise 1/2 |W^(1/2) (A x - y)|^2, with W the `weights` of the encoding: with a density compensation this is a
weighted least squares, whose noise is coloured. Weights of regularisation carry no unit: 1 stands for the mean
eigenvalue of A^H W A times the `noise_level` of least squares, so that one number serves every scanner, noise and
undersampling. The truth is not needed for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.errors import BadInputError
from mrcore.random import seeded
from mrcore.solvers import Solution, Watch, conjugate_gradient, power_iteration, unwatched
from recon.encoding.encoding import Encoding

Prox = Callable[[Tensor, float], Tensor]
"""From coefficients and the length of the step to the minimiser of |z - x|^2 / (2 step) + penalty(z)."""

_MARGIN = 1.05  # the power iteration comes from below
_POWER_STEPS = 6  # of two applications each
_MEDIAN_TO_SD = 1.4826


@dataclass(frozen=True)
class LrtvSettings:
    """Low rank and total variation: `weight` of the joint TV of all coefficients, iterations outside and inside.

    Raises:
        BadInputError: a negative weight, no iterations.
    """

    weight: float = 1.0
    n_iter: int = 40
    n_inner: int = 8
    n_start: int = 8
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        if not (self.weight >= 0 and min(self.n_iter, self.n_inner, self.n_start) >= 1):
            raise BadInputError(f"LRTV needs a weight from 0 and at least one iteration, got {self}")


@dataclass(frozen=True)
class LlrSettings:
    """Locally low rank: `weight` of the nuclear norms of blocks of `block` voxels a side, at shifts drawn by `seed`.

    With a `weight` of sqrt 2 all of white noise would go, but for its chance.

    Raises:
        BadInputError: a negative weight, no iterations, blocks of less than 2 voxels.
    """

    weight: float = 0.5
    block: int = 8
    n_iter: int = 40
    n_start: int = 8
    tolerance: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.weight >= 0 and min(self.n_iter, self.n_start) >= 1 and self.block >= 2):
            raise BadInputError(
                f"locally low rank needs a weight from 0, an iteration and blocks of 2 or more, got {self}"
            )


def svd_mrf(encoding: Encoding, samples: Tensor) -> Tensor:
    """Return the adjoint image A^H W y (K, X, Y, Z), scaled to fit the data best. McGivney et al., IEEE TMI 2014."""
    rhs = encoding.right_hand_side(samples)
    return rhs * _fitting_scale(encoding, rhs)


def subspace_cg(
    encoding: Encoding, samples: Tensor, n_iter: int = 15, ridge: float = 0.0, watch: Watch = unwatched
) -> Solution:
    """Return the least-squares coefficients by conjugate gradients, which regularise by stopping at `n_iter`.

    `ridge`: weight of |x|^2 / 2 relative to the mean eigenvalue. Low-rank inversion: Zhao et al., MRM 2018;79:933.
    """
    rhs = encoding.right_hand_side(samples)
    added = ridge * mean_eigenvalue(encoding) if ridge else 0.0
    return conjugate_gradient(
        lambda x: encoding.normal(x) + added * x, rhs, max_iter=n_iter, tolerance=1e-4, watch=watch
    )


def lrtv(
    encoding: Encoding, samples: Tensor, settings: LrtvSettings | None = None, watch: Watch = unwatched
) -> Solution:
    """Return the coefficients of least misfit and joint total variation, by FISTA; `history` holds relative steps.

    The penalty is the sum over voxels of the norm of all differences of all coefficients. Golbabaee et al., Med Image
    Anal 2021;69:101945.
    """
    settings = settings or LrtvSettings()
    start = subspace_cg(encoding, samples, settings.n_start).x
    weight = settings.weight * mean_eigenvalue(encoding) * noise_level(start)
    dual: list[Tensor | None] = [None]

    def prox(x: Tensor, step: float) -> Tensor:
        z, dual[0] = _tv_prox(x, weight * step, settings.n_inner, dual[0])
        return z

    return _fista(encoding, samples, prox, start, settings, watch)


def locally_low_rank(
    encoding: Encoding, samples: Tensor, settings: LlrSettings | None = None, watch: Watch = unwatched
) -> Solution:
    """Return the coefficients of least misfit whose blocks have small nuclear norms, by FISTA.

    Blocks lie elsewhere in every iteration, which leaves no grid in the image. Zhang et al., MRM 2015;73:655.
    """
    settings = settings or LlrSettings()
    start = subspace_cg(encoding, samples, settings.n_start).x
    sides = [min(settings.block, n) for n in start.shape[1:]]
    # The largest singular value of real noise of sd 1; that of complex noise is sqrt 2 times as large.
    spread = math.sqrt(math.prod(sides)) + math.sqrt(len(start))
    weight = settings.weight * mean_eigenvalue(encoding) * noise_level(start) * spread
    generator = seeded(settings.seed, "recon.baselines:shifts")

    def prox(x: Tensor, step: float) -> Tensor:
        shifts = [int(torch.randint(side, (), generator=generator)) for side in sides]
        moved = _low_rank_blocks(x.roll(shifts, (1, 2, 3)), sides, weight * step)
        return moved.roll([-shift for shift in shifts], (1, 2, 3))

    return _fista(encoding, samples, prox, start, settings, watch)


def coefficient_scale(coefficients: Tensor) -> float:
    """Return the 99th percentile over voxels of the norm of the coefficients (K, X, Y, Z)."""
    return percentile_99(coefficients.abs().square().sum(0).sqrt())


def percentile_99(values: Tensor) -> float:
    """Return the value below which 99 % of real `values` of any shape lie: the scale of images without a unit."""
    flat = values.reshape(-1)
    return float(flat.kthvalue(max(1, math.ceil(0.99 * len(flat)))).values)


def noise_level(coefficients: Tensor) -> float:
    """Return the sd per real channel of the noise in coefficients (K, X, Y, Z), from the last, which has least signal.

    The median of second differences along each axis where there is signal at all, as if the noise were white; what is
    not sampled in the corners of k-space makes it an underestimate, by a quarter for spirals.
    """
    last = coefficients[-1]
    inside = coefficients.abs().square().sum(0).sqrt() > 0.05 * coefficient_scale(coefficients)
    found = []
    for axis, n in enumerate(last.shape):
        if n > 2:
            around = (last.narrow(axis, 0, n - 2) + last.narrow(axis, 2, n - 2)) / 2
            found.append((last.narrow(axis, 1, n - 2) - around)[inside.narrow(axis, 1, n - 2)])
    values = torch.view_as_real(torch.cat(found)).abs().reshape(-1) if found else coefficients.real.new_zeros(0)
    return float(values.median()) * _MEDIAN_TO_SD / math.sqrt(1.5) if len(values) else 0.0


def mean_eigenvalue(encoding: Encoding) -> float:
    """Return the mean eigenvalue of A^H W A from one random vector: Hutchinson's estimate of its trace."""
    operator = encoding.normal
    v = torch.randn(operator.shape_in, dtype=operator.dtype, generator=seeded(0, "recon.baselines:trace"))
    v = v.to(operator.device)
    return float(torch.vdot(v.reshape(-1), operator(v).reshape(-1)).real / v.abs().square().sum())


def largest_eigenvalue(encoding: Encoding) -> float:
    """Return the largest eigenvalue of A^H W A by power iteration, with a margin, so that it is no underestimate."""
    generator = seeded(0, "recon.baselines:power")
    # A^H W A is Hermitian and not negative: its singular values are its eigenvalues.
    return _MARGIN * float(power_iteration(encoding.normal, generator, _POWER_STEPS, tolerance=0).x)


def _fitting_scale(encoding: Encoding, image: Tensor) -> float:
    """Return the factor that brings A x closest to y, where `image` x is A^H W y."""
    curvature = float(torch.vdot(image.reshape(-1), encoding.normal(image).reshape(-1)).real)
    return float(image.abs().square().sum()) / curvature if curvature > 0 else 0.0


def _fista(
    encoding: Encoding,
    samples: Tensor,
    prox: Prox,
    start: Tensor,
    settings: LrtvSettings | LlrSettings,
    watch: Watch,
) -> Solution:
    """Minimise by FISTA, restarted when the momentum points uphill. Beck & Teboulle 2009; O'Donoghue & Candes 2015.

    The step is 1 over the largest eigenvalue.
    """
    step = 1 / largest_eigenvalue(encoding)
    rhs = encoding.right_hand_side(samples)
    x = ahead = start
    momentum = 1.0
    history: list[float] = []
    n_iter, tolerance = settings.n_iter, settings.tolerance
    for iteration in range(1, n_iter + 1):
        after = prox(ahead - step * (encoding.normal(ahead) - rhs), step)
        change = after - x
        history.append(float(torch.linalg.vector_norm(change) / torch.linalg.vector_norm(after).clamp_min(1e-30)))
        watch()
        if history[-1] < tolerance:
            return Solution(after, True, iteration, tuple(history), f"relative step below {tolerance:g}")
        if float(torch.vdot((ahead - after).reshape(-1), change.reshape(-1)).real) > 0:
            momentum = 1.0
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = after + ((momentum - 1) / following) * change
        x, momentum = after, following
    return Solution(x, False, n_iter, tuple(history), f"stopped after {n_iter} steps at a step of {history[-1]:.2e}")


def _tv_prox(x: Tensor, weight: float, n_iter: int, dual: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the minimiser z of |z - x|^2 / 2 + weight TV(z), and the dual variable to start from next time.

    Fast gradient projection: Beck & Teboulle, IEEE TIP 2009;18:2419.
    """
    axes = [axis for axis in (1, 2, 3) if x.shape[axis] > 1]
    if weight == 0 or not axes:
        return x, dual
    p = ahead = x.new_zeros((len(axes), *x.shape)) if dual is None else dual
    momentum, rate = 1.0, 1 / (4 * len(axes) * weight)
    for _ in range(n_iter):
        moved = ahead + rate * _differences(x - weight * _differences_adjoint(ahead, axes), axes)
        after = moved / moved.abs().square().sum((0, 1)).sqrt_().clamp_min_(1.0)
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = after + ((momentum - 1) / following) * (after - p)
        p, momentum = after, following
    return x - weight * _differences_adjoint(p, axes), p


def _differences(x: Tensor, axes: list[int]) -> Tensor:
    out = x.new_zeros((len(axes), *x.shape))
    for n, axis in enumerate(axes):
        out[n].narrow(axis, 0, x.shape[axis] - 1).copy_(torch.diff(x, dim=axis))
    return out


def _differences_adjoint(p: Tensor, axes: list[int]) -> Tensor:
    out = torch.zeros_like(p[0])
    for n, axis in enumerate(axes):
        length = p.shape[axis + 1] - 1
        part = p[n].narrow(axis, 0, length)
        out.narrow(axis, 0, length).sub_(part)
        out.narrow(axis, 1, length).add_(part)
    return out


def _low_rank_blocks(x: Tensor, sides: list[int], threshold: float) -> Tensor:
    """Return x (K, X, Y, Z) with the singular values of each block (voxels, K) shrunk by `threshold`.

    The image is continued periodically to whole blocks.
    """
    shape = x.shape[1:]
    missing = [-n % side for n, side in zip(shape, sides, strict=True)]
    for axis, more in enumerate(missing, start=1):
        x = torch.cat([x, x.narrow(axis, 0, more)], axis)
    counts = [n // side for n, side in zip(x.shape[1:], sides, strict=True)]
    split = [part for pair in zip(counts, sides, strict=True) for part in pair]
    blocks = x.reshape(len(x), *split).permute(1, 3, 5, 2, 4, 6, 0).reshape(math.prod(counts), -1, len(x))
    energy, vectors = torch.linalg.eigh((blocks.mH @ blocks).to(torch.complex128))
    values = energy.clamp_min(0).sqrt()
    kept = (values - threshold).clamp_min(0) / values.clamp_min(1e-300)
    blocks = blocks @ ((vectors * kept[:, None]) @ vectors.mH).to(x.dtype)
    out = blocks.reshape(*counts, *sides, len(x)).permute(6, 0, 3, 1, 4, 2, 5).reshape(x.shape)
    cropped: Tensor = out[(slice(None), *(slice(n) for n in shape))]
    return cropped
