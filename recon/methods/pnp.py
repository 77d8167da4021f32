"""Plug and play on the coefficient images: a denoiser in the place of a penalty."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.denoisers.unet import Denoise, geometric
from mrcore.errors import BadInputError
from mrcore.solvers import Solution, conjugate_gradient
from recon.encoding.encoding import Encoding
from recon.methods.baselines import coefficient_scale, mean_eigenvalue, noise_level, subspace_cg

STRONGEST_NOISE = 0.15
"""Relative to the 99th percentile of an image: what the shipped nets were trained up to."""


@dataclass(frozen=True)
class PnpSettings:
    """Plug-and-play ADMM on coefficients.

    `sigma_first` and `sigma_last`: noise per real channel removed in the first and the last step, relative to the
    `noise_level` of the start; between them it falls geometrically. `coupling`: the penalty relative to the mean
    eigenvalue of A^H W A. `n_cg`: most inner iterations. With `duals` off it is half-quadratic splitting.

    Raises:
        BadInputError: sigmas that are not positive or rise, a coupling that is not positive, no iterations.
    """

    n_iter: int = 12
    sigma_first: float = 1.0
    sigma_last: float = 0.5
    coupling: float = 2.0
    n_cg: int = 5
    n_start: int = 10
    duals: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.sigma_last <= self.sigma_first < math.inf:
            raise BadInputError(f"the noise to remove must fall and stay above 0, got {self}")
        if not self.coupling > 0 or min(self.n_iter, self.n_cg, self.n_start) < 1:
            raise BadInputError(f"plug and play needs a coupling above 0 and iterations, got {self}")


def pnp_admm(encoding: Encoding, samples: Tensor, denoise: Denoise, settings: PnpSettings | None = None) -> Solution:
    """Return coefficients (K, X, Y, Z) by plug-and-play ADMM; `history` is |x - v| / |x|, which need not converge.

        x <- argmin 1/2 |W^(1/2) (y - A x)|^2 + gamma/2 |x - (v - u)|^2;  v <- D_sigma(x + u);  u <- u + x - v

    Venkatakrishnan et al., GlobalSIP 2013. The denoiser sees real and imaginary parts of each coefficient, turned by
    the phase of the first coefficient at the start, so that most of the image is in the real parts.
    """
    settings = settings or PnpSettings()
    x = v = subspace_cg(encoding, samples, settings.n_start).x
    u = torch.zeros_like(x)
    rhs, noise = encoding.right_hand_side(samples), noise_level(x)
    gamma = settings.coupling * mean_eigenvalue(encoding)
    turn = torch.polar(torch.ones_like(x[0].real), -x[0].angle())
    history = []
    for sigma in geometric(settings.sigma_first, settings.sigma_last, settings.n_iter):
        x = conjugate_gradient(
            lambda d: encoding.normal(d) + gamma * d, rhs + gamma * (v - u), x, settings.n_cg, tolerance=1e-4
        ).x
        v = denoised_coefficients((x + u) * turn, denoise, sigma * noise) * turn.conj()
        u = u + x - v if settings.duals else u
        history.append(float(torch.linalg.vector_norm(x - v) / torch.linalg.vector_norm(x).clamp_min(1e-30)))
    message = f"{settings.n_iter} steps, coefficients and denoised ones apart by {history[-1]:.2e}"
    return Solution(v, history[-1] < 1e-3, settings.n_iter, tuple(history), message)


def denoised_coefficients(coefficients: Tensor, denoise: Denoise, sigma: float) -> Tensor:
    """Return each real channel denoised; channels with less signal than noise are taken as far as nets can go."""
    parts = [denoised_lifted(part, denoise, sigma) for c in coefficients for part in (c.real, c.imag)]
    return torch.complex(torch.stack(parts[::2]), torch.stack(parts[1::2]))


def denoised_lifted(image: Tensor, denoise: Denoise, sigma: float) -> Tensor:
    """Return an image that may be negative denoised as one that starts at 0, which is what nets know."""
    lowest = image.amin()
    lifted = (image - lowest).contiguous()
    highest = coefficient_scale(lifted[None])
    return denoise(lifted, min(sigma, STRONGEST_NOISE * highest)) + lowest if highest > 0 else image
