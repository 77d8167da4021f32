"""The noise with which a simulation shows the residuals of a real scan that has no usable air.

Residuals hold anatomy, and second differences lose some of coloured noise. Both happen to a simulated scan as well, so
level and colour of its noise are searched until its residuals are those of the scan, by one estimator for both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from torch import Tensor

from mrcore.data.acquisition import Acquisition
from mrcore.data.grid import Triple
from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.noise_estimate import background_noise, residual_noise
from ulfsim.matching.like import in_order
from ulfsim.matching.trial import Trial
from ulfsim.matching.widths import match_widths
from ulfsim.measurement.contrast import measure
from ulfsim.measurement.noise import noise_core
from ulfsim.measurement.spectrum import detrended, residual_colour
from ulfsim.plan import scan_axes
from ulfsim.protocols.presets import Preset

_N_DRAWS, _N_FINAL, _N_ROUNDS = 2, 6, 3
_WIDEST_VOXELS = 4.0
_WHITE: Triple = (0.0, 0.0, 0.0)


def with_residuals_of(
    preset: Preset, scan: Volume, tissues: TissueMap, trial: Trial, start_mm: Triple = _WHITE
) -> tuple[Preset, tuple[str, ...]]:
    """Return `preset` at the noise, level and colour, with which `trial` has the residuals of `scan`.

    `tissues` are those of `scan`; the SNRs of the preset are those measured by its residuals. Per axis the colour is
    searched from white to four voxels, the level for each colour. Where white noise leaves as much colour as the scan
    has, the axis stays white: the estimator cannot tell. A colour is narrowed while it needs more noise than a local
    mean leaves of the scan's tissue, than its air shows (ghosts and ringing only add to it), or than lets every tissue
    stand out. The search begins at `start_mm`. Notes say what was matched.
    """
    try:
        search = _Search.of(preset.acquisition, scan, tissues, trial)
        if not search.anatomy_sd < 0.9 * search.wanted_sd:
            return preset, ("the scan's noise cannot be told from the anatomy of the source; it is white, as measured",)
        wide, reached = _searched(search, start_mm)
        narrower = (0.1 * n for n in range(10, 0, -1))
        fwhm_mm = next((found for n in narrower if search.fits(found := _scaled(wide, (n,) * 3))), _WHITE)
        noise = search.noise(fwhm_mm, n_draws=_N_FINAL)
        # Noise lifts magnitudes: signals that were measured with less noise are too high by that.
        snr = _snr(scan, tissues, noise * trial.noise_sd / search.gain)
    except BadInputError as error:
        return preset, (f"the noise could not be matched: {error}",)
    if min(snr.values()) <= 0:
        snr = {name: value / noise for name, value in preset.snr.items()}
    colour_text = "white" if fwhm_mm == _WHITE else f"coloured by {_listed(fwhm_mm)} mm FWHM"
    source = f"{preset.source}; noise: {noise:.2f} of that measured, {colour_text}, for equal residuals"
    acquisition = replace(preset.acquisition, noise_fwhm_mm=fwhm_mm)
    notes = _notes(search.wanted_mm, reached, wide, fwhm_mm)
    return replace(preset, acquisition=acquisition, snr=snr, source=source), notes


def _searched(search: _Search, start_mm: Triple) -> tuple[Triple, Triple]:
    """Return the FWHM of the noise kernel per axis in mm, and the colour of the residuals that it gives."""
    limit = cast("Triple", tuple(_WIDEST_VOXELS * v for v in search.acquisition.voxel_mm))
    return match_widths(search.colour, search.wanted_mm, start_mm, limit, tolerance=0.05, n_most=6)


def _most_noise(scan: Volume, tissues: TissueMap) -> float:
    """Return the largest noise sd that air and the weakest tissue of a scan allow."""
    stats = measure(scan, tissues)
    air = background_noise(scan.data, tissues.mask)
    weakest = min(stats.mean)
    return max(min(weakest, math.inf if air is None else air.sd), stats.noise_range[0])


def _snr(scan: Volume, tissues: TissueMap, noise_sd: float) -> dict[str, float]:
    stats = measure(scan, tissues, noise_sd)
    return dict(zip(stats.names, stats.snr, strict=True))


def _notes(wanted: Triple, reached: Triple, wide: Triple, fwhm_mm: Triple) -> tuple[str, ...]:
    if wide == _WHITE:
        return (f"noise taken as white: with the source's anatomy that shows all of the colour, {_listed(wanted)} mm",)
    notes = []
    if fwhm_mm != wide:
        notes.append(f"noise of {_listed(wide)} mm FWHM would be more than the scan has; it was narrowed")
    notes.append(
        f"noise of {_listed(fwhm_mm)} mm FWHM, so that residuals have the scan's colour ({_listed(wanted)} mm; "
        f"{_listed(reached)} mm with noise of {_listed(wide)} mm): an estimate, as residuals hold anatomy"
    )
    return tuple(notes)


@dataclass(frozen=True, eq=False)
class _Residuals:
    """What is left of a magnitude (X, Y, Z) inside `core`, of which the images are cut to the surroundings."""

    core: Tensor
    window: tuple[slice, slice, slice]

    @classmethod
    def of(cls, tissues: TissueMap) -> _Residuals:
        core = noise_core(tissues)
        place = core.nonzero()
        low, high = (place.amin(0) - 1).clamp_min(0).tolist(), (place.amax(0) + 2).tolist()
        x, y, z = (slice(a, b) for a, b in zip(low, high, strict=True))
        return cls(core[x, y, z], (x, y, z))

    def sd(self, image: Tensor) -> float:
        """Return the sd of second differences."""
        return residual_noise(image, self.core).sd

    def colour(self, image: Tensor) -> Triple:
        """Return the colour of second differences, FWHM in voxels."""
        return residual_colour(image, self.core)

    def whole_sd(self, image: Tensor) -> float:
        """Return the sd of what a local mean leaves: all that noise could be."""
        rest, inside = detrended(image.double(), self.core)
        return float(rest[inside].square().mean().sqrt())


@dataclass(frozen=True, eq=False)
class _Search:
    """The noise-free scan of a trial (`clean`, cut to the core), and what is wanted of it, in units of the trial."""

    trial: Trial
    acquisition: Acquisition
    residuals: _Residuals
    clean: Tensor
    anatomy_sd: float
    wanted_sd: float
    wanted_mm: Triple
    whole_sd: float
    most: float
    gain: float

    @classmethod
    def of(cls, acquisition: Acquisition, scan: Volume, tissues: TissueMap, trial: Trial) -> _Search:
        real, ours = _Residuals.of(tissues), _Residuals.of(trial.tissues)
        seen = scan.data[real.window]
        clean = trial.clean(acquisition)
        stats, still = measure(scan, tissues), measure(Volume(clean.data.abs(), clean.grid), trial.tissues, 0.0)
        # Signals are compared where they are largest, so that noise matters least.
        name = max(stats.names, key=stats.mean_of)
        gain = still.mean_of(name) / stats.mean_of(name)
        order = scan_axes(scan.grid, acquisition.slice_axis)
        cut = clean.data[ours.window]
        return cls(
            trial,
            acquisition,
            ours,
            cut,
            ours.sd(cut.abs()),
            gain * real.sd(seen),
            _scaled(in_order(real.colour(seen), order), acquisition.voxel_mm),
            gain * real.whole_sd(seen),
            gain * _most_noise(scan, tissues),
            gain,
        )

    def noise(self, fwhm_mm: Triple, n_draws: int = _N_DRAWS) -> float:
        """Return the factor on the trial's noise for which second differences have the wanted sd."""
        anatomy, wanted, factor = self.anatomy_sd**2, self.wanted_sd**2, 1.0
        for _ in range(_N_ROUNDS):
            variance = sum(self.residuals.sd(self._seen(fwhm_mm, factor, n)) ** 2 for n in range(n_draws)) / n_draws
            # Variances add, but for robust ones not quite: the last step starts near its goal.
            factor *= math.sqrt(min(max((wanted - anatomy) / max(variance - anatomy, 1e-12 * wanted), 0.1), 10.0))
        return factor

    def colour(self, fwhm_mm: Triple) -> Triple:
        """Return the colour of second differences in mm at the level that noise of `fwhm_mm` needs."""
        factor = self.noise(fwhm_mm)
        found = [self.residuals.colour(self._seen(fwhm_mm, factor, n)) for n in range(_N_DRAWS)]
        return _scaled(cast("Triple", tuple(np.mean(found, axis=0).tolist())), self.acquisition.voxel_mm)

    def fits(self, fwhm_mm: Triple) -> bool:
        """Return whether the scan can hold noise of `fwhm_mm` at the level that its residuals need."""
        factor = self.noise(fwhm_mm)
        left = self.residuals.whole_sd(self._seen(fwhm_mm, factor, 0))
        return left <= 1.05 * self.whole_sd and factor * self.trial.noise_sd <= self.most

    def _seen(self, fwhm_mm: Triple, factor: float, draw: int) -> Tensor:
        return self.trial.noisy(self.clean, factor * self.trial.noise_sd, fwhm_mm, draw)


def _scaled(values: Triple, factors: Triple) -> Triple:
    return cast("Triple", tuple(v * f for v, f in zip(values, factors, strict=True)))


def _listed(fwhm_mm: Triple) -> str:
    return " x ".join(f"{f:.2g}" for f in fwhm_mm)
