"""The point spread and the noise with which a simulation shows what a real scan shows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

from mrcore.data.grid import Triple
from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.noise_estimate import RESIDUAL
from ulfsim.matching.like import blurred, in_order
from ulfsim.matching.noise import with_residuals_of
from ulfsim.matching.trial import Trial, trial_of
from ulfsim.matching.widths import match_widths
from ulfsim.measurement.edge_spread import edge_spread
from ulfsim.measurement.noise import noise_core, scan_noise
from ulfsim.measurement.spectrum import noise_spectrum
from ulfsim.plan import scan_axes
from ulfsim.protocols.presets import PSF_SOURCE, Preset
from ulfsim.source.source import Source

_WIDEST_VOXELS = 4.0


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
    is that of `scan`, measured in the same way. Band limits stay as they are. Where the source itself is blunter than
    the scan, no blur is added; where an axis has too few edges, the PSF stays as it was. Both are said in the notes.

    The colour of the noise is that of the air. Noise that was measured by residuals holds some anatomy and loses some
    of its colour: its level and colour are then set so that residuals in the simulation, with the anatomy of `source`,
    are those of the scan (`ulfsim.matching.noise`).

    Raises:
        BadInputError: a preset that the source cannot be given.
    """
    order = scan_axes(scan.grid, preset.acquisition.slice_axis)
    spread = edge_spread(scan, tissues.mask)
    wanted = in_order(spread.fwhm_mm, order)
    limit = cast("Triple", tuple(_WIDEST_VOXELS * v for v in preset.acquisition.voxel_mm))
    colour, notes = _noise_of_air(scan, tissues)
    preset = replace(preset, acquisition=replace(preset.acquisition, noise_fwhm_mm=in_order(colour, order)))
    by_residuals = scan_noise(scan, tissues.mask, noise_core(tissues)).method == RESIDUAL
    found, residual_notes = preset, cast("tuple[str, ...]", ())
    # Noise widens edges a little, and blunter edges leave less anatomy in residuals.
    for _ in range(2 if by_residuals else 1):
        trial = trial_of(found, source, seed)
        start = cast("Triple", tuple(axis.gaussian_fwhm_mm for axis in found.acquisition.psf))
        fwhm_mm, reached = match_widths(_edges_of(trial), wanted, start, limit)
        preset = replace(preset, acquisition=blurred(preset.acquisition, fwhm_mm))
        colour = found.acquisition.noise_fwhm_mm
        found = preset
        if by_residuals:
            found, residual_notes = with_residuals_of(preset, scan, tissues, trial_of(preset, source, seed), colour)
    listed = ", ".join(f"{f:.2g}" for f in fwhm_mm)
    text = found.source.replace(PSF_SOURCE, f"PSF: Gaussians of {listed} mm FWHM, by the scan's edges")
    notes = (*notes, *_width_notes(fwhm_mm, wanted, reached), *residual_notes)
    return Match(replace(found, source=text), wanted, reached, notes)


def _edges_of(trial: Trial) -> Callable[[Triple], Triple]:
    return lambda fwhm_mm: edge_spread(trial.scan(fwhm_mm), trial.tissues.mask).fwhm_mm


def _noise_of_air(scan: Volume, tissues: TissueMap) -> tuple[Triple, tuple[str, ...]]:
    """Return the FWHM of the noise kernel per voxel axis of the scan, 0 where air does not tell it, and notes."""
    try:
        found = noise_spectrum(scan, tissues.mask, noise_core(tissues))
    except BadInputError as error:
        return (0.0, 0.0, 0.0), (f"noise taken as white: {error}",)
    if found.method == RESIDUAL:
        return (0.0, 0.0, 0.0), ("the air does not tell the colour of the noise",)
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
