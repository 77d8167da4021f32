"""Simulations like real scans: what a scan's file and sidecar say, and what its image shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Many
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import numpy as np

from mrcore.data.acquisition import Acquisition, AxisPsf, PulseSequence
from mrcore.data.grid import Triple
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.io.bids.resolution import stated_psf
from mrcore.io.bids.sequence import field_from_sidecar, sequence_from_sidecar
from mrcore.io.bids.values import time_s
from ulfsim.measurement.contrast import ContrastStats
from ulfsim.plan import scan_axes, slice_axis_of
from ulfsim.protocols.presets import FIELD_T, PSF_SOURCE, Preset
from ulfsim.protocols.targets import TargetSnr, from_snrs

_BIDS_KEYS = {
    "tr_s": "RepetitionTime",
    "te_s": "EchoTime",
    "ti_s": "InversionTime",
    "flip_deg": "FlipAngle",
}


def preset_like(scan: Volume, stats: ContrastStats, weighting: str) -> Preset:
    """Return the preset that a real scan and its measured contrast stand for, so that a simulation can be like it.

    Field and sequence come from the sidecar of `scan` where it has them (field 64 mT otherwise). The voxel is the
    nominal one of the file, the last being the largest; the PSF is what the sidecar says of slices and acquired matrix,
    else a Gaussian of one voxel FWHM with truncation, and the noise is white: `ulfsim.matching.matched` measures both.

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
    voxel_mm = in_order(scan.grid.spacing_mm, scan_axes(scan.grid, slice_axis))
    sequence, field_t, sequence_notes = _sequence(scan.meta, weighting)
    along, _ = stated_psf(scan.meta, scan.grid)
    first, second, third = (along[axis] for axis in scan_axes(scan.grid, slice_axis))
    acquisition = Acquisition(field_t, voxel_mm, sequence, psf=(first, second, third), slice_axis=slice_axis)
    source = f"measured in {scan.meta.get('SourceFile', 'the reference scan')}; noise: {stats.noise_method}"
    snr = dict(zip(stats.names, stats.snr, strict=True))
    return Preset("like", acquisition, snr, "; ".join((source, *sequence_notes, PSF_SOURCE)))


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
    alike = all(scan.sequence == first.sequence for scan in scans)
    widths = _mean(tuple(axis.gaussian_fwhm_mm for axis in scan.psf) for scan in scans)
    acquisition = replace(
        blurred(first, widths),
        field_t=float(np.mean([scan.field_t for scan in scans])),
        voxel_mm=_mean(scan.voxel_mm for scan in scans),
        noise_fwhm_mm=_mean(scan.noise_fwhm_mm for scan in scans),
        sequence=first.sequence if alike else PulseSequence(first.sequence.weighting),
    )
    target = from_snrs([preset.snr for preset in presets], [preset.source for preset in presets])
    source = f"mean of {len(presets)} scans; first: {presets[0].source}"
    return Preset("like", acquisition, target.median, source), target


def _sequence(meta: Mapping[str, object], weighting: str) -> tuple[PulseSequence, float, tuple[str, ...]]:
    """Return what the sidecar says; a scan is measured, not predicted, so what is missing stays unknown."""
    try:
        found = sequence_from_sidecar(meta, weighting)
    except BadInputError:
        field_t, notes = field_from_sidecar(meta)
        return _known(meta, weighting), field_t or FIELD_T, (*notes, "sequence: its sidecar does not state all of it")
    return found.sequence, found.field_t or FIELD_T, found.notes


def _known(meta: Mapping[str, object], weighting: str) -> PulseSequence:
    """Return what an incomplete sidecar states in plain, plausible numbers."""
    sequence = PulseSequence(weighting)
    for name, key in _BIDS_KEYS.items():
        with suppress(BadInputError):
            # Times in milliseconds are refused, and stay unknown.
            given: dict[str, Any] = {name: time_s(meta, key)}
            sequence = replace(sequence, **given)
    return sequence


def blurred(acquisition: Acquisition, fwhm_mm: Triple) -> Acquisition:
    """Return the acquisition with Gaussians of `fwhm_mm` along its voxel axes."""
    psf = tuple(replace(axis, gaussian_fwhm_mm=width) for axis, width in zip(acquisition.psf, fwhm_mm, strict=True))
    return replace(acquisition, psf=cast("tuple[AxisPsf, AxisPsf, AxisPsf]", psf))


def _mean(rows: Iterable[tuple[float, ...]]) -> Triple:
    values = np.array(list(rows), np.float64).mean(0)
    return cast("Triple", tuple(values.tolist()))


def in_order(values: Triple, order: tuple[int, int, int]) -> Triple:
    """Return `values` per voxel axis of a scan in the order of an acquisition's axes."""
    return cast("Triple", tuple(float(values[axis]) for axis in order))
