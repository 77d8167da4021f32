"""The noise of a scan: what its air and its residuals say, and one verdict on both.

Air tells the noise around the head. That within it may be larger (parallel imaging amplifies it most in the middle,
masks and filters make air quiet) or smaller (ghosts and interference add to the air). Residuals of tissue are where
the noise matters, but anatomy adds to them, and second differences lose some of coloured noise. Where both agree
within their errors the air counts, as it has more voxels; where not, the noise lies between them.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from mrcore.data.grid import Grid, Triple
from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.noise_estimate import BACKGROUND, RESIDUAL, NoiseEstimate, background_noise, residual_noise
from mrcore.notes import Caution
from mrcore.spatial.resampling import resample
from ulfsim.measurement.air import COMPLEX_BACKGROUND, air_of
from ulfsim.measurement.band import acquired_voxel_mm, is_interpolated, on_acquired_voxels
from ulfsim.measurement.spectrum import (
    air_colour,
    coloured_residual_sd,
    detrended,
    gaussian_autocorrelation,
    residual_colour,
)

GIVEN = "given"
WHITE: Triple = (0.0, 0.0, 0.0)
_AIR_ERROR, _RESIDUAL_ERROR = 0.01, 0.10
"""Relative errors of a noise sd that more voxels do not lessen: noise differs between air and tissue; residuals hold
anatomy and lose colour."""
_MOST_ANATOMY = 2.0
"""Residuals over the sd of noise-like air that anatomy may explain; beyond, the noise is that of the tissue."""


@dataclass(frozen=True)
class ScanNoise:
    """Noise per real channel of a scan.

    Attributes:
        sd: the best estimate.
        low: the least that the evidence leaves open; equal to `sd` and `high` where it agrees.
        high: the most.
        method: what `sd` rests on: `background`, `complex background`, `residual` or `given`.
        error: relative standard error of `sd`, `low` and `high`.
        fwhm_voxels: width of the kernel that coloured it, per voxel axis; known from air, else 0.
        acquired_mm: voxel size that the scan's band asks for along each axis; its own where it was not interpolated.
        notes: what was found; the first is a caution where the noise is only bracketed.
    """

    sd: float
    low: float
    high: float
    method: str
    error: float = 0.0
    fwhm_voxels: Triple = WHITE
    acquired_mm: Triple = WHITE
    notes: tuple[str, ...] = ()

    @property
    def is_bracketed(self) -> bool:
        """Whether the noise is only known to lie between two values that differ."""
        return self.high > 1.05 * self.low

    @property
    def independent_share(self) -> float:
        """Share of the voxels that would hold as much, were their noise independent; 1 where it is white."""
        return math.prod(map(_independent, self.fwhm_voxels))


def given_noise(sd: float) -> ScanNoise:
    """Return noise that is known."""
    return ScanNoise(sd, sd, sd, GIVEN)


def noise_core(tissues: TissueMap, threshold: float = 0.9, n_enough: int = 200) -> Tensor:
    """Return the core (X, Y, Z, bool) in which noise is measured by residuals: that of WM, the most uniform tissue.

    Where it has room for fewer than `n_enough` voxels with all neighbours, it is that of the tissue with most room; the
    whole brain where no tissue has any. Its outer voxels stay: the filters need their neighbours inside, which leaves
    the outer ones out once; a second time would cost most of the voxels that the estimate rests on.
    """
    cores: dict[str, Tensor] = dict(zip(tissues.names, tissues.prob > threshold, strict=True))
    room = {name: int(eroded(core).count_nonzero()) for name, core in cores.items()}
    if room.get("WM", 0) >= n_enough:
        return cores["WM"]
    most = max(room, key=lambda name: room[name])
    return cores[most] if room[most] else tissues.mask


def scan_noise(volume: Volume, mask: Tensor, core: Tensor | None = None) -> ScanNoise:
    """Estimate the noise of `volume` (magnitude or complex): the one estimate that all of mrkit uses.

    `mask` (X, Y, Z, bool) is the object, outside which air is looked for, `core` (X, Y, Z, bool) tissue as uniform as
    there is (`noise_core`; default: the flattest third of the mask). Residuals of an interpolated scan are those of its
    acquired voxels.

    Air that is distributed as noise and agrees with the residuals within the errors of both gives the noise. If they
    contradict it, the noise is bracketed by both: `sd` is still that of the air where the residuals, which hold
    anatomy, are less than twice as large, else that of the residuals. Without such air the noise
    is between that of white residuals and that of noise which has all of their colour, and `sd` is the latter.

    Raises:
        BadInputError: no air, and too little tissue for residuals.
    """
    magnitude = volume.data.abs() if volume.data.is_complex() else volume.data
    acquired = acquired_voxel_mm(volume, mask)
    notes: tuple[str, ...] = ()
    if is_interpolated(volume, acquired):
        text = " x ".join(f"{a:.2g}" for a in acquired)
        notes = (f"the scan was interpolated or filtered: it holds the detail of voxels of {text} mm",)
    residuals = _residuals(
        Volume(magnitude, volume.grid), mask, _flat(magnitude, mask) if core is None else core, acquired
    )
    air = background_noise(magnitude, mask)
    found = None if air is None else _air(volume, mask, air)
    if air is None or found is None or not (air.plausible or found.method == COMPLEX_BACKGROUND):
        if residuals is None:
            raise BadInputError(
                f"the noise cannot be estimated: no usable air, and too little tissue ({int(mask.sum())} voxels in "
                "the mask); give a larger mask or the noise sd"
            )
        verdict = _without_air(residuals, air)
    elif residuals is None:
        verdict = found
    else:
        verdict = _verdict(found, residuals.seen_in(found.fwhm_voxels))
    return ScanNoise(
        verdict.sd,
        verdict.low,
        verdict.high,
        verdict.method,
        verdict.error,
        verdict.fwhm_voxels,
        acquired,
        (*verdict.notes, *notes),
    )


def eroded(mask: Tensor) -> Tensor:
    """Drop voxels that have one of their six neighbours outside; the edge of the image counts as outside."""
    mask = mask.contiguous()
    out = mask.clone()
    # Shifts along memory are fastest; where they run into the next row they meet the edge, which is dropped.
    before, after = mask.view(-1).view(torch.uint8), out.view(-1).view(torch.uint8)
    for axis in range(3):
        step = mask.stride(axis)
        after[step:].bitwise_and_(before[: len(before) - step])
        after[: len(after) - step].bitwise_and_(before[step:])
        out.select(axis, 0).fill_(False)
        out.select(axis, mask.shape[axis] - 1).fill_(False)
    return out


@dataclass(frozen=True)
class _Residuals:
    """Residuals of tissue: their estimate for white noise, their colour, and all that a local mean leaves."""

    white: NoiseEstimate
    fwhm_voxels: Triple
    most: float

    @property
    def error(self) -> float:
        """Relative standard error: neighbours among second differences are correlated, and anatomy is in them."""
        return math.hypot(3.2 / math.sqrt(self.white.n_voxels), _RESIDUAL_ERROR)

    def seen_in(self, fwhm_voxels: Triple) -> _Residuals:
        """Return them for noise of a known colour: the estimate is what that noise would need."""
        sd = coloured_residual_sd(self.white.sd, fwhm_voxels, self.most)
        white = NoiseEstimate(sd, RESIDUAL, self.white.n_voxels, self.white.message)
        return _Residuals(white, self.fwhm_voxels, self.most)


def _residuals(volume: Volume, mask: Tensor, core: Tensor, acquired: Triple) -> _Residuals | None:
    """Return the residuals on the acquired voxels; None where there is no room for the filters."""
    coarse = on_acquired_voxels(volume, acquired)
    for region in (core, mask):
        inside = region if coarse is volume else _on(coarse.grid, region, volume.grid)
        with suppress(BadInputError):
            white = residual_noise(coarse.data, inside)
            colour = residual_colour(coarse.data, inside)
            rest, counted = detrended(coarse.data.double(), inside)
            most = float(rest[counted].square().mean().sqrt()) if bool(counted.any()) else white.sd
            return _Residuals(white, colour, max(most, white.sd))
    return None


def _flat(image: Tensor, mask: Tensor) -> Tensor:
    """Return the third of the mask where the smoothed image is flattest, as far as it has room for 3 x 3 x 3 voxels.

    Smoothing leaves no trace of the fast noise that second differences are made of: it does not choose.
    """
    slope = ndimage.gaussian_gradient_magnitude(image.float().numpy(), 1.5)
    inside = mask.numpy()
    if not inside.any():
        return mask
    flat = inside & (slope <= np.quantile(slope[inside], 1 / 3))
    size = tuple(3 if n >= 3 else 1 for n in flat.shape)
    return torch.from_numpy(ndimage.binary_opening(flat, np.ones(size, bool)))


def _on(grid: Grid, region: Tensor, own: Grid) -> Tensor:
    return resample(Volume(region.float(), own), grid, order=1).data > 0.9


def _air(volume: Volume, mask: Tensor, air: NoiseEstimate) -> ScanNoise | None:
    """Return the noise of the air with its colour; None where its voxels are too few to tell."""
    sd, n_voxels, method, message = air.sd, air.n_voxels, BACKGROUND, air.message
    fwhm = WHITE
    found = air_of(volume.data, mask, air)
    if found is not None:
        fwhm = air_colour(volume.data, found.region)
        if volume.data.is_complex():
            sd, n_voxels, method, message = found.sd, found.n_voxels, COMPLEX_BACKGROUND, found.message
    share = math.prod(map(_independent, fwhm))
    # The median of n independent Rayleigh values has the error 0.72 / sqrt(n).
    error = math.hypot(0.72 / math.sqrt(max(n_voxels * share, 1.0)), _AIR_ERROR)
    return ScanNoise(sd, sd, sd, method, error, fwhm, notes=(message,))


def _verdict(air: ScanNoise, residuals: _Residuals) -> ScanNoise:
    """Return the noise of air that is distributed as noise, or the bracket of both where residuals contradict it."""
    other = residuals.white.sd
    if other <= 0 or abs(math.log(other / air.sd)) <= 1.96 * math.hypot(air.error, residuals.error):
        return air
    low, high = min(air.sd, other), max(air.sd, other)
    believed = other < _MOST_ANATOMY * air.sd
    why = (
        "anatomy adds to residuals, or noise is larger in tissue than in air, as with parallel imaging and masks"
        if other > air.sd
        else "ghosts or interference add to the air, or tissue was filtered"
    )
    text = (
        f"the noise is only bracketed: its sd is {air.sd:.4g} by {_source(air)} and {other:.4g} by residuals of tissue "
        f"({residuals.white.n_voxels} voxels); {why}. Values rest on {'the former' if believed else 'the latter'}, "
        "and the 95 % intervals hold both"
    )
    method, error = (air.method, air.error) if believed else (RESIDUAL, residuals.error)
    notes = (Caution(text, rank=0), *air.notes)
    return ScanNoise(air.sd if believed else high, low, high, method, error, air.fwhm_voxels, notes=notes)


def _source(air: ScanNoise) -> str:
    return "air" if "quietest" not in air.notes[0] else "the quietest part of the air"


def _without_air(residuals: _Residuals, air: NoiseEstimate | None) -> ScanNoise:
    """Return the bracket of residuals: of white noise, and of noise with all of their colour.

    Anatomy looks like coloured noise, so the upper end is a bound. Air that is not distributed as noise bounds it as
    well: ghosts and ringing add to it, and anatomy to the residuals, so that the smaller of the two is nearer.
    """
    white, most = residuals.white, residuals.most
    low = white.sd
    unused = "no usable air" if air is None else f"not used: {air.message}"
    if air is not None:
        low = min(air.sd, white.sd)
        most = max(min(most, air.sd), white.sd)
    high = max(coloured_residual_sd(white.sd, residuals.fwhm_voxels, most), low)
    notes: tuple[str, ...] = (f"{white.message} ({unused})",)
    if high > 1.05 * low:
        kernel = " x ".join(f"{f:.2g}" for f in residuals.fwhm_voxels)
        least = "if it is white" if low == white.sd else "by air that does not look like noise"
        text = (
            f"the noise is only bracketed: its sd is {low:.4g} {least} and {high:.4g} if the colour of the residuals "
            f"({kernel} voxels FWHM) is its own and not anatomy's. Values rest on the latter, and the 95 % intervals "
            "hold both"
        )
        notes = (Caution(text, rank=0), *notes)
    return ScanNoise(high, low, high, RESIDUAL, residuals.error, notes=notes)


def _independent(fwhm_voxels: float) -> float:
    """Return the share of independent voxels along an axis: 1 / the sum of squared autocorrelations."""
    if not fwhm_voxels > 0:
        return 1.0
    lags = gaussian_autocorrelation(fwhm_voxels, 24)
    return float(1 / (1 + 2 * (lags[1:] ** 2).sum()))
