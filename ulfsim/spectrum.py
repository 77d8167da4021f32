"""Noise power spectrum: whether the noise of a scan is white, and how it is coloured where not."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mrcore.grid import Triple
from mrcore.volume import Volume


@dataclass(frozen=True)
class NoiseSpectrum:
    """Colour of the noise along each voxel axis.

    Attributes:
        fwhm_mm: full width at half maximum of the Gaussian kernel that white noise would have been filtered with; 0
            white; NaN where an axis is too short to tell.
        autocorrelation: per axis, of the complex noise at lags of 0, 1, 2, ... voxels.
        k_cyc_per_mm: per axis, frequencies from 0 to 1 / (2 voxel).
        power: per axis, power at these frequencies; white noise is 1 everywhere.
        white_fraction: share of the band that the noise fills, (integral of power)^2 / integral of power^2; 1 white.
        sd: noise per real channel.
        method: `complex background`, `background` or `residual`.
        n_voxels: it rests on.
        notes: what limits it.
    """

    fwhm_mm: Triple
    autocorrelation: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
    k_cyc_per_mm: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
    power: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
    white_fraction: float
    sd: float
    method: str
    n_voxels: int
    notes: tuple[str, ...] = ()


def noise_spectrum(volume: Volume, mask: Tensor, core: Tensor | None = None) -> NoiseSpectrum:
    """Measure the noise colour of `volume` (real magnitude or complex).

    `mask` (X, Y, Z, bool) is the object, outside which air is looked for; `core` (X, Y, Z, bool) homogeneous tissue
    for residuals where there is no air that is distributed as noise (default: the mask).

    Raises:
        BadInputError: too few voxels for either.
    """
    raise NotImplementedError
