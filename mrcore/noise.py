"""Magnitude MR noise: draw it, estimate it, its likelihood.

Complex Gaussian noise of `sd` per real channel makes a Rician magnitude: E[M^2] = A^2 + 2 sd^2; where A = 0 it is
Rayleigh with mean 1.2533 sd and standard deviation 0.6551 sd (Gudbjartsson & Patz, MRM 1995;34:910).
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from mrcore.errors import BadInputError

RAYLEIGH_MEAN = math.sqrt(math.pi / 2)
RAYLEIGH_SD = math.sqrt(2 - math.pi / 2)


def seeded(seed: int, key: str) -> torch.Generator:
    """Return a CPU generator for `seed` and a stable text `key` (sha256, so the same in every process)."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def add_noise(signal: Tensor, sd: float, generator: torch.Generator) -> Tensor:
    """Return the magnitude of `signal` (real or complex) plus complex white noise of `sd` per real channel.

    With `sd` 0 the result is exactly `signal.abs()`.
    """
    if sd < 0:
        raise BadInputError(f"a noise sd must not be negative, got {sd}")
    if sd == 0:
        return signal.abs()
    dtype = signal.dtype.to_real()
    draw = torch.randn((2, *signal.shape), generator=generator, dtype=dtype, device=generator.device)
    noise = sd * draw.to(signal.device)
    real, imag = (signal.real, signal.imag) if signal.is_complex() else (signal, torch.zeros_like(signal))
    return torch.hypot(real + noise[0], imag + noise[1])


def rician_nll(predicted: Tensor, measured: Tensor, sd: float) -> Tensor:
    """Return -log p(measured | predicted, sd) per voxel, without the terms that do not depend on `predicted`.

    Equals (measured - predicted)^2 / (2 sd^2) up to a small term at high SNR, and is exact at low.
    """
    z = measured * predicted / sd**2
    return 0.5 * (measured - predicted) ** 2 / sd**2 - torch.log(torch.special.i0e(z))


def debias(mean_magnitude: Tensor, sd: float) -> Tensor:
    """Return A from the root mean square or mean of a Rician magnitude: sqrt(max(M^2 - 2 sd^2, 0)); for M^2 means."""
    return (mean_magnitude**2 - 2 * sd**2).clamp_min(0).sqrt()
