"""Simulations like real scans: what a scan's file and sidecar say, and what its image shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from mrcore.acquisition import Acquisition, AxisPsf, Sequence, gaussian_psf
from mrcore.bids_sequence import sequence_from_sidecar
from mrcore.errors import BadInputError
from mrcore.forward import predict
from mrcore.grid import Triple
from mrcore.noise import complex_noise, seeded
from mrcore.volume import TissueMap, Volume
from ulfsim.calibrate import calibrate
from ulfsim.edge_spread import edge_spread
from ulfsim.measure import ContrastStats, tissue_cores
from ulfsim.plan import plan_scan, scan_axes, slice_axis_of, tissues_through
from ulfsim.presets import FIELD_T, PSF_SOURCE, Preset
from ulfsim.source import Source, truth_of
from ulfsim.spectrum import noise_spectrum
from ulfsim.targets import TargetSnr, from_snrs

_WIDEST_VOXELS = 4.0


def preset_like(scan: Volume, stats: ContrastStats, weighting: str) -> Preset:
    """Return the preset that a real scan and its measured contrast stand for, so that a simulation can be like it.

    Field and sequence come from the sidecar of `scan` where it has them (field 64 mT otherwise). The voxel is the
    nominal one of the file, the last being the largest; the PSF is a Gaussian of one voxel FWHM with truncation and
    the noise is white: `matched` measures both.

    Raises:
        BadInputError: a tissue that is lost in noise, or noise of 0.
    """
    lost = [name for name, snr in zip(stats.names, stats.snr, strict=True) if not 0 < snr < math.inf]
    if lost:
        raise BadInputError(
            f"the SNR of {', '.join(lost)} in the reference scan cannot be used (noise sd {stats.noise_sd:.3g}); check "
            "its mask and tissue maps"
        )
    slice_axis = slice_axis_of(scan.grid)
    voxel_mm = _in_order(scan.grid.spacing_mm, scan_axes(scan.grid, slice_axis))
    sequence, field_t, said = _sequence(scan.meta, weighting)
    acquisition = Acquisition(field_t, voxel_mm, sequence, psf=gaussian_psf(voxel_mm), slice_axis=slice_axis)
    source = f"measured in {scan.meta.get('SourceFile', 'the reference scan')}; noise: {stats.noise_method}"
    snr = dict(zip(stats.names, stats.snr, strict=True))
    return Preset("like", acquisition, snr, "; ".join((source, *said, PSF_SOURCE)))


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
    """Give `preset` the noise colour of the real `scan`, and the PSF with which `source` shows edges as blurred as it.

    `tissues` are those of `scan`. Edges in an image are softer than its PSF, as borders are folded and cross voxels
    at a slant: so the PSF is found by simulating scans of `source`, with noise, until their edge spread is that of
    `scan`, measured in the same way. Truncation stays on all axes. Where the source itself is blunter than the scan,
    no blur is added; where an axis has too few edges, the PSF stays as it was. Both are said in the notes.

    Raises:
        BadInputError: a scan of other tissues than the source's, or a preset that the source cannot be given.
    """
    order = scan_axes(scan.grid, preset.acquisition.slice_axis)
    wanted = _in_order(edge_spread(scan, tissues.mask).fwhm_mm, order)
    colour, notes = _noise_colour(scan, tissues)
    acquisition = replace(preset.acquisition, noise_fwhm_mm=_in_order(colour, order))
    start = cast("Triple", tuple(axis.gaussian_fwhm_mm for axis in acquisition.psf))
    plan = plan_scan(source.volume.grid, acquisition, source.volume.data.dtype)
    # The gains hardly depend on the width, and edges hardly on the gains.
    first = calibrate(source, plan, preset.snr)
    truth = truth_of(source, first.gains, first.background_gain)

    def spread(fwhm_mm: Triple) -> Triple:
        plan = plan_scan(source.volume.grid, _blurred(acquisition, fwhm_mm), truth.data.dtype)
        clean = predict(plan.operator, truth.data)
        voxels = cast(
            "Triple", tuple(f / v for f, v in zip(acquisition.noise_fwhm_mm, acquisition.voxel_mm, strict=True))
        )
        noise = complex_noise(
            clean.shape, first.noise_sd, seeded(seed, "ulfsim.like:noise"), voxels, dtype=clean.dtype.to_complex()
        )
        seen = Volume((clean + noise).abs(), plan.scan_grid)
        return edge_spread(seen, tissues_through(plan, source.tissues).mask).fwhm_mm

    limit = cast("Triple", tuple(_WIDEST_VOXELS * v for v in acquisition.voxel_mm))
    fwhm_mm, reached = match_widths(spread, wanted, start, limit)
    notes = (*notes, *_width_notes(fwhm_mm, wanted, reached))
    said = ", ".join(f"{f:.2g}" for f in fwhm_mm)
    text = preset.source.replace(
        PSF_SOURCE,
        f"PSF: truncation and a Gaussian of {said} mm FWHM per axis, so that edges are as wide as in the scan",
    )
    return Match(replace(preset, acquisition=_blurred(acquisition, fwhm_mm), source=text), wanted, reached, notes)


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


def mean_like(presets: Many[Preset], tolerance: float = 0.05) -> tuple[Preset, TargetSnr]:
    """Return the mean of presets of several real scans, at their median SNR, and the distribution of their SNRs.

    Field, voxel, PSF widths and noise colour are averaged; the sequence stays where all agree. To simulate a
    scan of that kind, draw: `replace(preset, snr=target.draw(seed, key))`.

    Raises:
        BadInputError: no scan, voxels that differ by more than `tolerance`, other weightings or orientations.
    """
    if not presets:
        raise BadInputError("a mean needs at least one real scan, got none")
    scans = [preset.acquisition for preset in presets]
    voxels = np.array([scan.voxel_mm for scan in scans])
    if (np.ptp(voxels, axis=0) > tolerance * voxels.mean(0)).any():
        listed = ", ".join("x".join(f"{v:.3g}" for v in row) for row in sorted(set(map(tuple, voxels.tolist()))))
        raise BadInputError(f"the scans have different voxels ({listed} mm); give a folder for each kind of scan")
    for what, values in (
        ("weightings", {scan.sequence.weighting for scan in scans}),
        ("slice axes", {scan.slice_axis for scan in scans}),
    ):
        if len(values) > 1:
            raise BadInputError(
                f"the scans have different {what} ({', '.join(sorted(values))}); give a folder for each"
            )
    first = scans[0]
    widths = _mean(tuple(axis.gaussian_fwhm_mm for axis in scan.psf) for scan in scans)
    acquisition = replace(
        _blurred(first, widths),
        field_t=float(np.mean([scan.field_t for scan in scans])),
        voxel_mm=_mean(scan.voxel_mm for scan in scans),
        noise_fwhm_mm=_mean(scan.noise_fwhm_mm for scan in scans),
        sequence=first.sequence
        if all(scan.sequence == first.sequence for scan in scans)
        else Sequence(first.sequence.weighting),
    )
    target = from_snrs([preset.snr for preset in presets], [preset.source for preset in presets])
    source = f"mean of {len(presets)} scans; first: {presets[0].source}"
    return Preset("like", acquisition, target.median, source), target


def _sequence(meta: Mapping[str, object], weighting: str) -> tuple[Sequence, float, tuple[str, ...]]:
    """Return what the sidecar says; a scan is measured, not predicted, so what is missing stays unknown."""
    try:
        found = sequence_from_sidecar(meta, weighting)
    except BadInputError:
        return Sequence(weighting), FIELD_T, ("sequence: not in its sidecar, or not usable there",)
    return found.sequence, found.field_t or FIELD_T, found.notes


def _noise_colour(scan: Volume, tissues: TissueMap) -> tuple[Triple, tuple[str, ...]]:
    """Return FWHM per voxel axis of the scan, 0 where it cannot be told, and notes."""
    cores, _ = tissue_cores(tissues)
    try:
        found = noise_spectrum(scan, tissues.mask, max(cores, key=lambda core: int(core.sum())))
    except BadInputError as error:
        return (0.0, 0.0, 0.0), (f"noise taken as white: {error}",)
    return cast("Triple", tuple(f if math.isfinite(f) else 0.0 for f in found.fwhm_mm)), found.notes


def _blurred(acquisition: Acquisition, fwhm_mm: Triple) -> Acquisition:
    psf = tuple(replace(axis, gaussian_fwhm_mm=width) for axis, width in zip(acquisition.psf, fwhm_mm, strict=True))
    return replace(acquisition, psf=cast("tuple[AxisPsf, AxisPsf, AxisPsf]", psf))


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


def _mean(rows: object) -> Triple:
    values = np.array(list(cast("Many[Triple]", rows)), np.float64).mean(0)
    return cast("Triple", tuple(values.tolist()))


def _rooted(squares: NDArray[np.float64]) -> Triple:
    return cast("Triple", tuple(np.sqrt(squares).tolist()))


def _in_order(values: Triple, order: tuple[int, int, int]) -> Triple:
    return cast("Triple", tuple(float(values[axis]) for axis in order))
