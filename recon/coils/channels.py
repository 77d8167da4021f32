"""Receive channels: white noise of equal level in all, and fewer virtual channels that hold the signal."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from mrcore.errors import BadInputError
from recon.rawdata import RawData

_SINGULAR = 1e-5
"""Least eigenvalue of correlations between coils; those of arrays that work stay above a hundredth."""


def noise_covariance(noise: Tensor) -> Tensor:
    """Return E[n n^H] (C, C) of samples of noise alone (C, M), whose mean is zero.

    Raises:
        BadInputError: fewer than two samples a channel.
    """
    n_coils, n_samples = noise.shape
    if n_samples < 2 * n_coils:
        raise BadInputError(f"the noise of {n_coils} coils needs {2 * n_coils} samples or more, got {n_samples}")
    return noise @ noise.mH / n_samples


def whitened(raw: RawData, covariance: Tensor | None = None) -> RawData:
    """Return the data with uncorrelated noise of sd 1 per real channel in every coil.

    `covariance` (C, C) is E[n n^H] of the noise, by default that of the data's noise scan. The channels are mixed by
    sqrt(2) L^-1, with the Cholesky factor L of the covariance; coil maps must come from the mixed data.
    Pruessmann et al., MRM 2001;46:638.

    Raises:
        BadInputError: no noise scan and no covariance; a covariance that does not fit or is singular.
    """
    if covariance is None:
        if raw.noise is None:
            raise BadInputError("there is no noise scan to whiten by: give a covariance, or leave the noise as it is")
        covariance = noise_covariance(raw.noise)
    if tuple(covariance.shape) != (raw.n_coils, raw.n_coils):
        raise BadInputError(f"the covariance of {raw.n_coils} coils has the shape {tuple(covariance.shape)}")
    wide = covariance.to(torch.complex128)
    level = wide.diagonal().real.clamp_min(1e-300).sqrt()
    # Between coils, whatever their gains: the sum of rounding makes a singular covariance of samples a regular one.
    if not float(torch.linalg.eigvalsh(wide / level[:, None] / level).min()) > _SINGULAR:
        raise BadInputError("the noise covariance is singular: a coil is dead or given twice; leave it out")
    factor = torch.linalg.cholesky(wide)
    identity = torch.eye(raw.n_coils, dtype=torch.complex128)
    return mixed(raw, math.sqrt(2) * torch.linalg.solve_triangular(factor, identity, upper=False))


def compressed(raw: RawData, n_coils: int | None = None, energy: float = 0.99) -> RawData:
    """Return the data of the fewest virtual coils that hold a share `energy` of the energy, or of `n_coils`.

    They are the strongest directions of the samples, orthonormal combinations of the channels, so that white noise
    stays white. Buehrer et al., MRM 2007;57:1131.

    Raises:
        BadInputError: more coils than there are, or an energy outside 0 to 1.
    """
    if not 0 < energy <= 1 or not 1 <= (n_coils or 1) <= raw.n_coils:
        raise BadInputError(f"expected an energy from 0 to 1 and 1 to {raw.n_coils} coils, got {energy} and {n_coils}")
    wide = raw.samples.to(torch.complex128)
    power, vectors = torch.linalg.eigh(wide @ wide.mH)
    share = power.flip(0).clamp_min(0).cumsum(0) / power.clamp_min(0).sum().clamp_min(1e-300)
    n_kept = n_coils or min(raw.n_coils, int((share < energy * (1 - 1e-12)).sum()) + 1)
    return mixed(raw, vectors.flip(1)[:, :n_kept].mH)


def mixed(raw: RawData, matrix: Tensor) -> RawData:
    """Return the data of combinations `matrix` (new, C) of the channels, noise included."""
    matrix = matrix.to(raw.samples.device, raw.samples.dtype)
    noise = None if raw.noise is None else matrix @ raw.noise
    return replace(raw, samples=matrix @ raw.samples, noise=noise)
