"""Deterministic simulation of an ultra-low-field scan: tissue gains, the imaging operator, complex noise, magnitude."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import cast

import torch
from torch import Tensor

from mrcore.data.acquisition import Acquisition, to_json
from mrcore.data.brief import Brief
from mrcore.data.grid import Triple
from mrcore.data.volume import Volume
from mrcore.noise import complex_noise, root_sum_of_squares
from mrcore.notes import Caution
from mrcore.operators.fourier import FourierOp
from mrcore.operators.linop import LinearOp
from mrcore.random import seeded
from ulfsim.artefacts.artefacts import NO_ARTEFACTS, Artefacts, disturbed_operator, interference_of
from ulfsim.artefacts.artefacts import to_json as artefacts_to_json
from ulfsim.calibration.gains import Calibration, calibrate
from ulfsim.calibration.response import response
from ulfsim.plan import ScanPlan, plan_scan, scan_axes
from ulfsim.protocols.presets import Preset
from ulfsim.source.source import Source, truth_of
from ulfsim.source.window import touches_edge

_NOISE = "ulfsim.simulate:noise"
_N_FOR_DIP = 500_000


@dataclass(frozen=True, eq=False, repr=False)
class Simulation(Brief):
    """A simulated scan and everything it was made from.

    Attributes:
        scan: magnitude image, the root sum of squares of `channels`.
        channels: complex images (C, X, Y, Z) with noise of `acquisition.noise_sd` per real channel. Each of the C
            channels carries signal / sqrt(C), so that `scan` has the same signal whatever their number.
        signal: the noise-free scan (X, Y, Z), real or, with artefacts, complex: what `operator` makes of `truth`, and
            interference.
        truth: the noise-free object in the scan's contrast, on the source's grid.
        operator: takes `truth` to `signal`, artefacts included.
        acquisition: how it was scanned.
        artefacts: what disturbed it.
        gains: factor per tissue on the parts of the source.
        background_gain: factor on its rest.
        seed: of the noise.
        notes: what a reader of the result must know.
    """

    scan: Volume
    channels: Tensor
    signal: Tensor
    truth: Volume
    operator: LinearOp
    acquisition: Acquisition
    artefacts: Artefacts
    gains: Mapping[str, float]
    background_gain: float
    seed: int
    notes: tuple[str, ...]


def simulate(
    source: Source,
    acquisition: Acquisition,
    gains: Mapping[str, float],
    seed: int,
    background_gain: float | None = None,
    artefacts: Artefacts = NO_ARTEFACTS,
) -> Simulation:
    """Scan `source` with one gain per tissue; the same arguments give the same bytes.

    What no tissue covers (skull, scalp, air) has no measured target: by default it keeps its proportion to the last
    tissue (WM). Everything is computed where the source is, the noise is drawn on the CPU.

    Raises:
        BadInputError: gains that do not name the tissues or are negative.
    """
    return _simulated(source, _plan(source, acquisition), gains, seed, background_gain, artefacts)


def calibrated_simulation(
    source: Source,
    preset: Preset,
    seed: int,
    noise_sd: float | None = None,
    artefacts: Artefacts = NO_ARTEFACTS,
    prior: Mapping[str, float] | None = None,
) -> tuple[Calibration, Simulation]:
    """Calibrate gains and noise so that the scan has the SNRs of `preset`, then simulate it.

    `noise_sd` fixes the noise per real channel in units of the source. By default it is the source's own noise where
    that can be measured in air and lets the target be reached; otherwise the scan keeps the source's intensities.
    The targets are those of the undisturbed scan: artefacts come on top. `prior` (tissue -> gain) is that of
    `calibrate`.
    """
    plan = _plan(source, preset.acquisition)
    measured = response(source, plan)
    air = source.air_noise if noise_sd is None else None
    given = noise_sd if air is None else air.sd
    calibration = calibrate(source, plan, preset.snr, noise_sd=given, prior=prior, measured=measured)
    if air is not None and calibration.misses_target:
        calibration = calibrate(source, plan, preset.snr, prior=prior, measured=measured)
    plan = replace(plan, acquisition=replace(preset.acquisition, noise_sd=calibration.noise_sd))
    done = _simulated(source, plan, calibration.gains, seed, calibration.background_gain, artefacts)
    return calibration, done


def redrawn(simulation: Simulation, seeds: Sequence[int]) -> Tensor:
    """Return scans (N, X, Y, Z) that differ from `simulation` in the noise: what simulating with each seed gives."""
    voxel_mm = simulation.scan.grid.spacing_mm
    return torch.stack([_noisy(simulation.signal, simulation.acquisition, voxel_mm, seed)[0] for seed in seeds])


def k_space(simulation: Simulation) -> Tensor:
    """Return the noisy k-space (C, X, Y, Z) along the axes of the scan.

    Centred and orthonormal: k = 0 is sample n // 2, the noise has the sd of the images, and the inverse transform's
    root sum of squares is `simulation.scan`.
    """
    channels = simulation.channels
    return FourierOp(tuple(channels.shape[1:]), channels.dtype, channels.device)(channels)


def border_dip(source: Source, truth: Volume, n_bins: int = 64) -> float:
    """Return how far the truth falls where the source rises, as a fraction of the truth's range.

    Gains may turn the order of intensities over in voxels between two tissues (false rims). The mean truth is taken
    in bins of source intensity between the darkest and the brightest tissue; the largest fall below an earlier bin
    counts on a rising curve, the largest rise on a falling one. Means nothing where the scan reverses the contrast
    between some tissues only. Of large images every second or third voxel along each axis is enough.
    """
    low, high = min(source.levels), max(source.levels)
    step = max(1, round((source.basis[0].numel() / _N_FOR_DIP) ** (1 / 3)))
    thinned = tuple(slice(w.start, w.stop, step) for w in source.window)
    before, after = source.volume.data[thinned], truth.data[thinned]
    mask = source.tissues.prob[(slice(None), *thinned)].sum(0) > 0.5
    inside = mask & (before >= low) & (before <= high)
    if high <= low or not bool(inside.any()):
        return 0.0
    index = ((before[inside].double() - low) / (high - low) * n_bins).long().clamp(0, n_bins - 1)
    count = torch.bincount(index, minlength=n_bins)
    mean = torch.bincount(index, after[inside].double(), minlength=n_bins) / count.clamp_min(1)
    curve = mean[count >= max(20, 1e-3 * index.numel())]
    span = float(curve.max() - curve.min()) if curve.numel() else 0.0
    if span == 0:
        return 0.0
    fall = float((curve.cummax(0).values - curve).max())
    rise = float((curve - curve.cummin(0).values).max())
    return min(fall, rise) / span


def _plan(source: Source, acquisition: Acquisition) -> ScanPlan:
    data = source.volume.data
    plan = plan_scan(source.volume.grid, acquisition, data.dtype)
    return plan if data.device.type == "cpu" else replace(plan, operator=plan.operator.to(data.device))


def _simulated(
    source: Source,
    plan: ScanPlan,
    gains: Mapping[str, float],
    seed: int,
    background_gain: float | None,
    artefacts: Artefacts,
) -> Simulation:
    volume, acquisition = source.volume, plan.acquisition
    outside = gains.get(source.names[-1], 0.0) if background_gain is None else background_gain
    truth = truth_of(source, gains, outside)
    operator = plan.operator if artefacts == NO_ARTEFACTS else disturbed_operator(plan, artefacts)
    signal = operator(truth.data)
    added = interference_of(artefacts, plan.scan_grid, signal.dtype, signal.device)
    if added is not None:
        signal = signal + acquisition.noise_sd * added
    origin = {key: volume.meta[key] for key in ("SourceFile", "SourceSHA256") if key in volume.meta}
    settings = {"Gains": dict(gains), "BackgroundGain": outside, "Seed": seed, "NoiseSD": acquisition.noise_sd}
    disturbed = {"Artefacts": artefacts_to_json(artefacts)} if artefacts != NO_ARTEFACTS else {}
    meta = {**to_json(acquisition), "Simulation": {**settings, **disturbed, **origin}}
    magnitude, channels = _noisy(signal, acquisition, plan.scan_grid.spacing_mm, seed)
    return Simulation(
        scan=Volume(magnitude, plan.scan_grid, meta),
        channels=channels,
        signal=signal,
        truth=truth,
        operator=operator,
        acquisition=acquisition,
        artefacts=artefacts,
        gains=MappingProxyType(dict(gains)),
        background_gain=outside,
        seed=seed,
        notes=tuple(_notes(source, truth, plan)),
    )


def _noisy(signal: Tensor, acquisition: Acquisition, voxel_mm: Triple, seed: int) -> tuple[Tensor, Tensor]:
    """Return magnitude (X, Y, Z) and noisy complex channels (C, X, Y, Z) of a noise-free scan."""
    n = acquisition.n_channels
    part = (signal / math.sqrt(n) if n > 1 else signal).to(signal.dtype.to_complex())
    if acquisition.noise_sd == 0:
        return signal.abs(), part.expand(n, *signal.shape)
    widths = cast("Triple", tuple(w / v for w, v in zip(acquisition.noise_fwhm_mm, voxel_mm, strict=True)))
    noise = complex_noise(
        (n, *signal.shape), acquisition.noise_sd, seeded(seed, _NOISE), widths, signal.dtype, signal.device
    )
    channels = noise.add_(part)
    return root_sum_of_squares(channels), channels


def _notes(source: Source, truth: Volume, plan: ScanPlan) -> list[Caution]:
    notes = []
    axes = scan_axes(source.volume.grid, plan.acquisition.slice_axis)
    if _keeps_order(source, truth) and (dip := border_dip(source, truth)) > 0.02:
        text = f"the gains are not monotone in intensity: dips of {100 * dip:.0f} % at tissue borders"
        notes.append(Caution(text, rank=0))
    object_mm = [source.volume.grid.spacing_mm[a] for a in axes]
    if any(fine > coarse * 1.001 for fine, coarse in zip(object_mm, plan.scan_grid.spacing_mm, strict=True)):
        text = "the source's voxels are larger than the scan's on some axis: nothing finer can be simulated"
        notes.append(Caution(text))
    widths = tuple(plan.scan_grid.spacing_mm[axes.index(a)] for a in range(3))
    if touches_edge(truth, cast("Triple", widths)):
        text = "the object touches the edge of its lattice and wraps by one voxel; pad it (ulfsim.plan.with_margin)"
        notes.append(Caution(text, rank=0))
    if source.n_negative:
        notes.append(Caution(f"{source.n_negative} negative values of the source were set to 0"))
    return notes


def _keeps_order(source: Source, truth: Volume) -> bool:
    """Whether the tissues, sorted by brightness, come in the same or the exactly opposite order in both images."""
    before, after = (torch.tensor(levels).argsort() for levels in (source.levels, source.core_means(truth.data)))
    return torch.equal(before, after) or torch.equal(before, after.flip(0))
