"""Magnitude MR noise: draw it, white or coloured, in one or more channels; its likelihood and its moments.

Complex Gaussian noise of `sd` per real channel makes a Rician magnitude: E[M^2] = A^2 + 2 sd^2; where A = 0 it is
Rayleigh with mean 1.2533 sd and standard deviation 0.6551 sd (Gudbjartsson & Patz, MRM 1995;34:910). The root sum of
squares of n channels is non-central chi: E[M^2] = A^2 + 2 n sd^2 (Constantinides et al., MRM 1997;38:852).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.linalg import circulant
from scipy.special import gammaln, hyp1f1
from torch import Tensor

from mrcore.data.grid import Triple
from mrcore.errors import BadInputError
from mrcore.operators.linop import Shape, real_dtype


def complex_noise(
    shape: Shape,
    sd: float,
    generator: torch.Generator,
    fwhm_voxels: Triple = (0.0, 0.0, 0.0),
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw complex Gaussian noise (..., X, Y, Z) of `sd` per real channel, whatever its colour.

    White noise is filtered circularly with a Gaussian of `fwhm_voxels` along X, Y, Z, whose gain of variance is 1: the
    noise spectrum falls as exp(-(2 pi sigma k)^2). It is drawn where the generator is, in the precision of `dtype`,
    then moved to `device` (None leaves it there) and filtered. With `sd` 0 nothing is drawn.

    Raises:
        BadInputError: a negative sd, or widths that are not three numbers of voxels from 0.
    """
    if len(fwhm_voxels) != 3 or not all(0 <= width < math.inf for width in fwhm_voxels):
        raise BadInputError(f"fwhm_voxels needs three widths in voxels, not negative, got {fwhm_voxels}")
    real, imag = _drawn(shape, sd, generator, fwhm_voxels, dtype, device)
    return torch.complex(real, imag)


def add_noise(signal: Tensor, sd: float, generator: torch.Generator) -> Tensor:
    """Return the magnitude of `signal` (real or complex) plus complex white noise of `sd` per real channel.

    With `sd` 0 the result is exactly `signal.abs()`.
    """
    if sd == 0:
        return signal.abs()
    noise = _drawn(tuple(signal.shape), sd, generator, (0.0, 0.0, 0.0), signal.dtype, signal.device)
    real, imag = (signal.real, signal.imag) if signal.is_complex() else (signal, torch.zeros_like(signal))
    return torch.hypot(real + noise[0], imag + noise[1])


def root_sum_of_squares(channels: Tensor) -> Tensor:
    """Return the magnitude (..., X, Y, Z) of complex images (..., C, X, Y, Z) of C channels."""
    # Faster than abs() and vector_norm(), which guard against overflow.
    return (channels.real.square() + channels.imag.square()).sum(-4).sqrt()


def rician_nll(predicted: Tensor, measured: Tensor, sd: float) -> Tensor:
    """Return -log p(measured | predicted, sd) per voxel, without the terms that do not depend on `predicted`.

    Equals (measured - predicted)^2 / (2 sd^2) up to a small term at high SNR, and is exact at low.
    """
    z = measured * predicted / sd**2
    return 0.5 * (measured - predicted) ** 2 / sd**2 - torch.log(torch.special.i0e(z))


def chi_moments(signal: Tensor, sd: float, n_channels: int = 1) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the root sum of squares of `n_channels` noisy channels.

    `signal` is the noise-free root sum of squares, `sd` the noise per real channel; one channel is Rician.

    Raises:
        BadInputError: an sd that is not positive, or channels other than 1 to 48.
    """
    if not sd > 0:
        raise BadInputError(f"moments of a magnitude need a positive noise sd, got {sd}")
    if not 1 <= n_channels <= 48:  # scipy's 1F1 overflows for more
        raise BadInputError(f"moments are known for 1 to 48 channels, got {n_channels}")
    t = signal.double().cpu().numpy() ** 2 / (2 * sd**2)
    gain = sd * math.sqrt(2) * math.exp(gammaln(n_channels + 0.5) - gammaln(n_channels))
    mean = torch.as_tensor(gain * hyp1f1(-0.5, n_channels, -t), device=signal.device)
    variance = signal.double().square() + 2 * n_channels * sd**2 - mean.square()
    return mean.to(signal.dtype), variance.clamp_min(0).sqrt().to(signal.dtype)


def residual_z(scan: Tensor, predicted: Tensor, noise_sd: float) -> Tensor:
    """Return (scan - expected) / sd of magnitudes under Rician noise about the noise-free `predicted`.

    Of a right prediction its mean is 0 and its sd 1, at any SNR. `noise_sd` is per real channel.

    Raises:
        BadInputError: an sd that is not positive.
    """
    expected, sd = chi_moments(predicted, noise_sd)
    return (scan - expected) / sd


def _drawn(
    shape: Shape,
    sd: float,
    generator: torch.Generator,
    fwhm_voxels: Triple,
    dtype: torch.dtype,
    device: torch.device | str | None,
) -> Tensor:
    """Return real and imaginary part as (2, *shape)."""
    if not 0 <= sd < math.inf:
        raise BadInputError(f"a noise sd must be finite and not negative, got {sd}")
    place = generator.device if device is None else torch.device(device)
    if sd == 0:
        return torch.zeros((2, *shape), dtype=real_dtype(dtype), device=place)
    noise = torch.randn((2, *shape), generator=generator, dtype=real_dtype(dtype), device=generator.device)
    noise = noise.to(place).mul_(sd)
    for axis, width in zip((-3, -2, -1), fwhm_voxels, strict=True):
        if width > 0:
            matrix = _colouring(shape[axis], width).to(noise)
            noise = (noise.movedim(axis, -1) @ matrix).movedim(-1, axis)
    return noise


def _colouring(n: int, fwhm_voxels: float) -> Tensor:
    """Return the circular Gaussian filter (n, n), symmetric, that keeps the variance of white noise."""
    sigma = fwhm_voxels / math.sqrt(8 * math.log(2))
    kernel = np.fft.irfft(np.exp(-2 * (math.pi * sigma * np.fft.rfftfreq(n)) ** 2), n)
    return torch.from_numpy(circulant(kernel / np.linalg.norm(kernel)))
