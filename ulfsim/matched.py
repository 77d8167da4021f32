"""The point spread and the noise with which a simulation shows what a real scan shows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mrcore.acquisition import Acquisition
from mrcore.errors import BadInputError
from mrcore.forward import predict
from mrcore.grid import Triple
from mrcore.noise import complex_noise, seeded
from mrcore.noise_estimate import RESIDUAL, residual_noise
from mrcore.volume import TissueMap, Volume
from ulfsim.calibrate import calibrate
from ulfsim.edge_spread import edge_spread
from ulfsim.like import blurred, in_order
from ulfsim.measure import measure, tissue_cores
from ulfsim.plan import plan_scan, scan_axes, tissues_through
from ulfsim.presets import PSF_SOURCE, Preset
from ulfsim.source import Source, truth_of
from ulfsim.spectrum import noise_spectrum

_WIDEST_VOXELS = 4.0
_N_ROUNDS, _N_DRAWS = 3, 4


@dataclass(frozen=True)
class Match:
    """A preset whose PSF and noise colour were measured, and how well it fits.

    `wanted_mm` and `reached_mm` are edge spreads (FWHM) along the acquisition's voxel axes, of the real scan and of
    the simulation; NaN where too few edges were found.
    """

    preset: Preset
    wanted_mm: Triple
    reached_mm: Triple
    notes: tuple[str, ...]


def matched(preset: Preset, scan: Volume, tissues: TissueMap, source: Source, seed: int = 0) -> Match:
    """Give `preset` the noise of the real `scan`, and the PSF with which `source` shows edges as blurred as it.

    `tissues` are those of `scan`. Edges in an image are softer than its PSF, as borders are folded and
    cross voxels at a slant: so the PSF is found by simulating scans of `source`, with noise, until their edge spread
    is that of `scan`, measured in the same way. Truncation stays on all axes. Where the source itself is blunter than
    the scan, no blur is added; where an axis has too few edges, the PSF stays as it was. Both are said in the notes.

    The colour of the noise is that of the air; without air it stays white. Noise that was measured by residuals holds
    some anatomy: its level is then set so that residuals in the simulation, with the anatomy of `source`, are those of
    the scan.

    Raises:
        BadInputError: a preset that the source cannot be given.
    """
    order = scan_axes(scan.grid, preset.acquisition.slice_axis)
    spread = edge_spread(scan, tissues.mask)
    wanted = in_order(spread.fwhm_mm, order)
    colour, notes = _noise_colour(scan, tissues)
    preset = replace(preset, acquisition=replace(preset.acquisition, noise_fwhm_mm=in_order(colour, order)))
    trial = _trial(preset, source, seed)
    start = cast("Triple", tuple(axis.gaussian_fwhm_mm for axis in preset.acquisition.psf))
    limit = cast("Triple", tuple(_WIDEST_VOXELS * v for v in preset.acquisition.voxel_mm))
    fwhm_mm, reached = match_widths(
        lambda widths: edge_spread(trial.scan(widths), trial.tissues.mask).fwhm_mm, wanted, start, limit
    )
    notes = (*notes, *_width_notes(fwhm_mm, wanted, reached))
    said = ", ".join(f"{f:.2g}" for f in fwhm_mm)
    text = preset.source.replace(PSF_SOURCE, f"PSF: truncation and Gaussians of {said} mm FWHM, by the scan's edges")
    preset = replace(preset, acquisition=blurred(preset.acquisition, fwhm_mm), source=text)
    if measure(scan, tissues).noise_method == RESIDUAL:
        preset, said_of_noise = _with_residuals(preset, scan, tissues, _trial(preset, source, seed))
        notes = (*notes, *said_of_noise)
    return Match(preset, wanted, reached, notes)


@dataclass(frozen=True, eq=False)
class _Trial:
    """A source in the contrast of a preset, to be scanned with one PSF or another; `tissues` as the scan sees them."""

    truth: Volume
    acquisition: Acquisition
    tissues: TissueMap
    noise_sd: float
    seed: int

    def scan(self, fwhm_mm: Triple, noise: float = 1.0, draw: int = 0) -> Volume:
        """Return the magnitude scan with Gaussians of `fwhm_mm`, and `noise` times the noise of one `draw`."""
        data = self.truth.data
        plan = plan_scan(self.truth.grid, blurred(self.acquisition, fwhm_mm), data.dtype)
        colour = [f / v for f, v in zip(self.acquisition.noise_fwhm_mm, self.acquisition.voxel_mm, strict=True)]
        clean = predict(plan.operator, data)
        drawn = complex_noise(
            tuple(clean.shape),
            noise * self.noise_sd,
            seeded(self.seed, f"ulfsim.matched:noise {draw}"),
            (colour[0], colour[1], colour[2]),
            dtype=data.dtype,
        )
        return Volume((clean + drawn).abs(), plan.scan_grid)


def _trial(preset: Preset, source: Source, seed: int) -> _Trial:
    plan = plan_scan(source.volume.grid, preset.acquisition, source.volume.data.dtype)
    # The gains hardly depend on the PSF, and edges hardly on the gains.
    found = calibrate(source, plan, preset.snr)
    truth = truth_of(source, found.gains, found.background_gain)
    return _Trial(truth, preset.acquisition, tissues_through(plan, source.tissues), found.noise_sd, seed)


def _with_residuals(preset: Preset, scan: Volume, tissues: TissueMap, trial: _Trial) -> tuple[Preset, tuple[str, ...]]:
    """Return the preset at the noise whose residuals, relative to the signal, are those of the scan."""
    fwhm_mm = cast("Triple", tuple(axis.gaussian_fwhm_mm for axis in preset.acquisition.psf))
    name = max(preset.snr, key=lambda each: preset.snr[each])
    still = trial.scan(fwhm_mm, 0.0)
    level = measure(still, trial.tissues, 0.0).mean_of(name) / measure(scan, tissues).mean_of(name)
    try:
        wanted = level * _residual(scan, tissues)
        anatomy = _residual(still, trial.tissues)
        if not anatomy < 0.9 * wanted:
            return preset, ("the scan's noise cannot be told from the anatomy of the source; its level is as measured",)
        noise = 1.0
        for _ in range(_N_ROUNDS):
            found = [_residual(trial.scan(fwhm_mm, noise, draw), trial.tissues) for draw in range(_N_DRAWS)]
            variance = sum(each**2 for each in found) / _N_DRAWS - anatomy**2
            # Variances add, but for the few voxels of a thin core.
            noise *= math.sqrt(min(max((wanted**2 - anatomy**2) / max(variance, 1e-30), 0.25), 4.0))
    except BadInputError as error:
        return preset, (f"the level of the noise could not be matched: {error}",)
    source = f"{preset.source}; noise: {noise:.2f} of that measured, for equal residuals"
    return replace(preset, snr={k: v / noise for k, v in preset.snr.items()}, source=source), ()


def _residual(scan: Volume, tissues: TissueMap) -> float:
    """Return the noise by residuals in the largest core, or in the brain where that has no room."""
    try:
        return residual_noise(scan.data, _largest(tissues)).sd
    except BadInputError:
        return residual_noise(scan.data, tissues.mask).sd


def _largest(tissues: TissueMap) -> Tensor:
    cores, _ = tissue_cores(tissues)
    return max(cores, key=lambda core: int(core.sum()))


def match_widths(
    spread: Callable[[Triple], Triple],
    wanted_mm: Triple,
    start_mm: Triple,
    limit_mm: Triple,
    *,
    tolerance: float = 0.03,
    n_most: int = 8,
) -> tuple[Triple, Triple]:
    """Return the Gaussian FWHM per axis for which `spread` gives `wanted_mm`, and what it then gives.

    Each axis is searched in its own bracket, [0, limit], all with the same evaluations. Variances add,
    spread^2 = rest^2 + g width^2: the next width follows from both ends of the bracket, or with g = 1 from one. An
    axis whose spread at 0 is above what is wanted ends at 0; one without a spread (NaN) stays where it started.
    """
    wanted, width = np.square(wanted_mm), np.square(np.array(start_mm, np.float64))  # all squared from here on
    limit = np.square(np.array(limit_mm, np.float64))
    low, high = np.zeros(3), limit.copy()
    at_low, at_high = np.full(3, np.nan), np.full(3, np.nan)
    best, found = width.copy(), np.full(3, np.nan)
    for _ in range(n_most):
        seen = np.square(spread(_rooted(width)))
        known = np.isfinite(seen) & np.isfinite(wanted)
        better = known & ~(np.abs(seen - wanted) >= np.abs(found - wanted))
        best, found = np.where(better, width, best), np.where(better, seen, found)
        below, above = known & (seen < wanted), known & (seen >= wanted)
        low, at_low = np.where(below, width, low), np.where(below, seen, at_low)
        high, at_high = np.where(above, width, high), np.where(above, seen, at_high)
        settled = ~known | (np.abs(np.sqrt(found / wanted) - 1) < tolerance) | (high <= 0) | (low >= limit)
        if settled.all():
            break
        slope = (at_high - at_low) / np.where(high > low, high - low, 1.0)
        step = np.where(np.isfinite(slope) & (slope > 0), low + (wanted - at_low) / slope, width + wanted - seen)
        # Only an end of the range that was not looked at may be a step's goal; else a bracket is cut in its inside.
        margin = 0.05 * (high - low)
        first = np.where(np.isfinite(at_low), low + margin, 0.0)
        last = np.where(np.isfinite(at_high), high - margin, limit)
        width = np.where(settled, best, np.clip(np.where(known, step, width), first, last))
    return _rooted(best), _rooted(found)


def _noise_colour(scan: Volume, tissues: TissueMap) -> tuple[Triple, tuple[str, ...]]:
    """Return FWHM per voxel axis of the scan, 0 where it cannot be told, and notes.

    Residuals of tissue do not tell: slow anatomy looks like coloured noise, in noise-free simulations as well.
    """
    try:
        found = noise_spectrum(scan, tissues.mask, _largest(tissues))
    except BadInputError as error:
        return (0.0, 0.0, 0.0), (f"noise taken as white: {error}",)
    if found.method == RESIDUAL:
        bound = ", ".join(f"{f:.2g}" for f in found.fwhm_mm)
        return (0.0, 0.0, 0.0), (f"noise taken as white: without air only a bound of its colour is known, {bound} mm",)
    return cast("Triple", tuple(f if math.isfinite(f) else 0.0 for f in found.fwhm_mm)), found.notes


def _width_notes(fwhm_mm: Triple, wanted: Triple, reached: Triple) -> list[str]:
    notes = []
    for axis, (width, goal, got) in enumerate(zip(fwhm_mm, wanted, reached, strict=True)):
        if not (math.isfinite(goal) and math.isfinite(got)):
            notes.append(f"axis {axis}: too few edges to measure the PSF; a Gaussian of {width:.2g} mm is assumed")
        elif width == 0 and got > 1.03 * goal:
            notes.append(f"axis {axis}: the source's edges ({got:.2g} mm) are blunter than the scan's ({goal:.2g} mm)")
        elif abs(got / goal - 1) > 0.15:
            notes.append(f"axis {axis}: edges of {got:.2g} mm could not be made {goal:.2g} mm wide as in the scan")
    return notes


def _rooted(squares: NDArray[np.float64]) -> Triple:
    return cast("Triple", tuple(np.sqrt(squares).tolist()))
