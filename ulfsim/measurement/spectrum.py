"""Noise power spectrum: whether the noise of a scan is white, and how it is coloured where not.

Complex Gaussian noise whose spectrum falls as exp(-(2 pi s k)^2) is white noise filtered with a Gaussian of standard
deviation s. Its colour is read from autocorrelations, which need no whole image and so can leave the object out. The
squares of Rayleigh magnitudes have an autocorrelation that is the squared modulus of that of the complex noise (Siegert
relation, Goodman, Statistical Optics, 1985), for any number of channels of one colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from scipy import ndimage
from scipy.optimize import minimize_scalar
from torch import Tensor

from mrcore.data.grid import Triple
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.noise_estimate import BACKGROUND, RESIDUAL
from ulfsim.measurement.air import COMPLEX_BACKGROUND, air_of

FWHM_PER_SD = math.sqrt(8 * math.log(2))
_N_LAGS = 8
_WIDEST_FWHM_VOXELS = 8.0
_LEAK_VOXELS = 0.5
"""Excess of the width by autocorrelations over that by second differences that is not noise."""
_FREQUENCIES = np.linspace(0, 0.5, 33)  # cycles per voxel
Curves = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class NoiseSpectrum:
    """Colour of the noise along each voxel axis.

    Attributes:
        fwhm_mm: full width at half maximum of the Gaussian kernel that white noise would have been filtered with; 0
            white; NaN where an axis is too short to tell.
        autocorrelation: per axis, of the noise at lags of 0, 1, 2, ... voxels.
        k_cyc_per_mm: per axis, frequencies from 0 to 1 / (2 voxel).
        power: per axis, power at these frequencies; white noise is 1 everywhere.
        white_fraction: share of the band that the noise fills, (integral of power)^2 / integral of power^2; 1 white.
        sd: noise per real channel.
        method: `complex background`, `background` or `residual`.
        n_voxels: it rests on.
        notes: what limits it.
    """

    fwhm_mm: Triple
    autocorrelation: Curves
    k_cyc_per_mm: Curves
    power: Curves
    white_fraction: float
    sd: float
    method: str
    n_voxels: int
    notes: tuple[str, ...] = ()


def noise_spectrum(volume: Volume, mask: Tensor, core: Tensor | None = None) -> NoiseSpectrum:
    """Measure the noise colour of `volume` (real magnitude or complex).

    `mask` (X, Y, Z, bool) is the object, outside which air is looked for; `core` (X, Y, Z, bool) homogeneous tissue
    for residuals where there is no air that is distributed as noise (default: the mask). Residuals are what remains
    after a local mean; anatomy adds to their low frequencies and the local mean takes from them, so their width comes
    from second differences, which neither changes much; the curves are those of the residuals.

    Raises:
        BadInputError: too few voxels for either.
    """
    air = air_of(volume.data, mask)
    notes: tuple[str, ...] = ()
    if air is not None:
        notes = () if air.plausible else (air.message,)
        lags = _lags_of_air(volume.data, air.region)
        fwhm_voxels = cast("Triple", tuple(fwhm_of_autocorrelation(lag) for lag in lags))
        sd, method, n_voxels = air.sd, COMPLEX_BACKGROUND if volume.data.is_complex() else BACKGROUND, air.n_voxels
    else:
        core = mask if core is None else core
        rest, inside = detrended(volume.data.abs().double(), core)
        n_voxels = int(inside.sum())
        if n_voxels < 50:
            raise BadInputError(f"the noise spectrum needs at least 50 voxels of tissue, got {n_voxels}")
        lags = [_autocorrelation(rest, inside, axis) for axis in range(3)]
        fwhm_voxels = residual_colour(volume.data.abs(), core)
        sd, method = float(rest[inside].square().mean().sqrt()), RESIDUAL
        notes = ("no air that is distributed as noise: residuals of tissue, where anatomy adds low frequencies",)
    spacing = volume.grid.spacing_mm
    power = [_power(lag) for lag in lags]
    filled = [min(p.mean() ** 2 / (p**2).mean(), 1.0) for p in power]
    return NoiseSpectrum(
        cast("Triple", tuple(float(f * s) for f, s in zip(fwhm_voxels, spacing, strict=True))),
        cast("Curves", tuple(tuple(lag.tolist()) for lag in lags)),
        cast("Curves", tuple(tuple((_FREQUENCIES / s).tolist()) for s in spacing)),
        cast("Curves", tuple(tuple(p.tolist()) for p in power)),
        float(np.prod(filled)),
        sd,
        method,
        n_voxels,
        notes,
    )


def air_colour(data: Tensor, region: Tensor) -> Triple:
    """Return the kernel width in voxels per axis of the noise in the air `region` (X, Y, Z, bool); 0 where unknown.

    It is that of the autocorrelation, but for what leaks smoothly out of the object and looks like a kernel: second
    differences, which that does not change, must show it as well. Those of Rayleigh magnitudes have nearly the
    squared autocorrelation of the complex noise, that of a kernel narrower by sqrt 2.
    """
    lags = _lags_of_air(data, region)
    seen, factor = (data.real, 1.0) if data.is_complex() else (data, math.sqrt(2))
    fast = [factor * f if math.isfinite(f) else 0.0 for f in residual_colour(seen, region)]
    whole = [f if math.isfinite(f) else 0.0 for f in map(fwhm_of_autocorrelation, lags)]
    return cast("Triple", tuple(w if w < f + _LEAK_VOXELS else f for w, f in zip(whole, fast, strict=True)))


def _lags_of_air(data: Tensor, region: Tensor) -> list[np.ndarray]:
    """Return the autocorrelation of the complex noise along each axis."""
    if data.is_complex():
        return [_autocorrelation(data, region, axis) for axis in range(3)]
    square = data.double().square()
    values = square - square[region].mean()
    return [np.sqrt(np.clip(_autocorrelation(values, region, axis), 0, None)) for axis in range(3)]


def gaussian_autocorrelation(fwhm_voxels: float, n_lags: int) -> np.ndarray:
    """Return the autocorrelation at lags 0 to `n_lags` of white noise filtered with a Gaussian, on the lattice."""
    k = (np.arange(256) + 0.5) / 512
    power = np.exp(-((2 * math.pi * fwhm_voxels / FWHM_PER_SD * k) ** 2))
    found: np.ndarray = np.cos(2 * math.pi * np.outer(np.arange(n_lags + 1), k)) @ power / power.sum()
    return found


def fwhm_of_autocorrelation(autocorrelation: np.ndarray) -> float:
    """Return the width in voxels of the Gaussian kernel whose autocorrelation fits best; NaN for fewer than 2 lags."""
    n = min(len(autocorrelation) - 1, 4)
    if n < 1 or not math.isfinite(autocorrelation[1]):
        return math.nan
    return _fitted_width(lambda fwhm: gaussian_autocorrelation(fwhm, n)[1:] - autocorrelation[1 : n + 1])


def second_difference_gain(fwhm_voxels: float) -> float:
    """Return the factor by which the filter (1, -2, 1) / sqrt(6) changes the variance of such noise; 1 for white."""
    lag = gaussian_autocorrelation(fwhm_voxels, 2)
    return float(6 - 8 * lag[1] + 2 * lag[2]) / 6


def residual_colour(image: Tensor, core: Tensor) -> Triple:
    """Return the width in voxels of the noise kernel per axis, from second differences of a magnitude in `core`.

    Second differences along an axis leave out what is smooth; the correlation of neighbouring ones is -2/3 for white
    noise and rises with the width. NaN where the core has no room for the filter.
    """
    return cast("Triple", tuple(_second_difference_width(image.double(), core, axis) for axis in range(3)))


def coloured_residual_sd(sd: float, fwhm_voxels: Triple, detrended_sd: float) -> float:
    """Return the noise sd whose second differences have the robust spread `sd` (mrcore.noise.residual_noise).

    The smallest of the products of filters along two or three axes was used, so the smallest gain is undone. Noise
    cannot be larger than all that is left of the tissue after a local mean, `detrended_sd`.
    """
    gains = [1.0 if math.isnan(f) else second_difference_gain(f) for f in fwhm_voxels]
    x, y, z = gains
    smallest = min(x * y * z, x * y, x * z, y * z)
    return sd if smallest >= 1 else max(sd, min(sd / math.sqrt(max(smallest, 1e-6)), detrended_sd))


def _second_difference_width(image: Tensor, core: Tensor, axis: int) -> float:
    n = image.shape[axis] - 2
    if n < 2:
        return math.nan
    low, middle, high = (image.narrow(axis, s, n) for s in range(3))
    inside = torch.stack([core.narrow(axis, s, n) for s in range(3)]).all(0)
    detail = low - 2 * middle + high
    values = detail[inside]
    if values.numel() < 50:
        return math.nan
    # Borders that reach into the core are not noise.
    limit = 4 * float((values - values.median()).abs().median()) / 0.6745
    found = _autocorrelation(detail, inside & (detail.abs() <= limit), axis, n_lags=1, n_errors=0.0)
    if len(found) < 2:
        return math.nan

    def misfit(fwhm: float) -> np.ndarray:
        lag = gaussian_autocorrelation(fwhm, 3)
        return np.array([(-4 + 7 * lag[1] - 4 * lag[2] + lag[3]) / (6 - 8 * lag[1] + 2 * lag[2]) - found[1]])

    return _fitted_width(misfit)


def _fitted_width(misfit: Callable[[float], np.ndarray]) -> float:
    def cost(fwhm: float) -> float:
        return float(np.square(misfit(fwhm)).sum())

    coarse = np.linspace(0, _WIDEST_FWHM_VOXELS, 41)
    at = int(np.argmin([cost(f) for f in coarse]))
    low, high = coarse[max(at - 1, 0)], coarse[min(at + 1, 40)]
    return float(minimize_scalar(cost, bounds=(low, high), method="bounded", options={"xatol": 1e-4}).x)


def _autocorrelation(
    values: Tensor, inside: Tensor, axis: int, n_lags: int = _N_LAGS, n_errors: float = 3.0
) -> np.ndarray:
    """Return the real autocorrelation along an axis, over pairs that both lie `inside`.

    Lags within `n_errors` standard errors of white noise, whose lags are 0, are set to 0.
    """
    masked = torch.where(inside, values, torch.zeros((), dtype=values.dtype))
    variance = float((masked.abs().double().square()).sum() / inside.sum().clamp_min(1))
    found = [1.0]
    for lag in range(1, min(n_lags, values.shape[axis] - 1) + 1):
        n = values.shape[axis] - lag
        a, b = masked.narrow(axis, 0, n), masked.narrow(axis, lag, n)
        n_pairs = int((inside.narrow(axis, 0, n) & inside.narrow(axis, lag, n)).sum())
        if n_pairs < 50 or variance == 0:
            break
        product = float((a * b.conj()).real.double().sum()) if values.is_complex() else float((a * b).double().sum())
        correlation = product / n_pairs / variance
        found.append(correlation if abs(correlation) > n_errors / math.sqrt(n_pairs) else 0.0)
    return np.array(found)


def _power(autocorrelation: np.ndarray) -> np.ndarray:
    """Return the power at _FREQUENCIES with mean 1: cosine transform under a Hann lag window (Blackman & Tukey)."""
    lags = np.arange(1, len(autocorrelation))
    window = 0.5 * (1 + np.cos(math.pi * lags / (len(autocorrelation) or 1)))
    power = 1 + 2 * np.cos(2 * math.pi * np.outer(_FREQUENCIES, lags)) @ (window * autocorrelation[1:])
    found: np.ndarray = np.clip(power, 0, None)
    return found


def detrended(image: Tensor, core: Tensor) -> tuple[Tensor, Tensor]:
    """Return the image less its mean over 7 x 7 x 7 voxels of the core, and where that mean rests on enough of them."""
    weight = core.double()
    mean = [torch.from_numpy(ndimage.uniform_filter(x.numpy(), 7, mode="constant")) for x in (image * weight, weight)]
    inside = core & (mean[1] > 0.15)
    return torch.where(inside, image - mean[0] / mean[1].clamp_min(1e-6), 0.0), inside
