"""Deterministic simulation of an ultra-low-field scan: tissue gains, the imaging operator, complex noise, magnitude."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from mrcore.acquisition import Acquisition, to_json
from mrcore.forward import predict
from mrcore.linop import LinearOp
from mrcore.noise import add_noise, seeded
from mrcore.noise_estimate import background_noise
from mrcore.volume import TissueMap, Volume
from ulfsim.calibrate import Calibration, calibrate
from ulfsim.measure import tissue_cores
from ulfsim.plan import ScanPlan, plan_scan, scan_axes
from ulfsim.presets import Preset
from ulfsim.response import response
from ulfsim.source import Source, truth_of


@dataclass(frozen=True, eq=False)
class Simulation:
    """A simulated scan and everything it was made from.

    `truth` is the noise-free object in the scan's contrast on the source's grid; `operator` takes it to the scan, so
    `scan.data` is `predict(operator, truth.data)` plus noise of `acquisition.noise_sd`.
    """

    scan: Volume
    truth: Volume
    operator: LinearOp
    acquisition: Acquisition
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
) -> Simulation:
    """Scan `source` with one gain per tissue; the same arguments give the same bytes.

    What no tissue covers (skull, scalp, air) has no measured target: by default it keeps its proportion to the last
    tissue (WM).

    Raises:
        BadInputError: gains that do not name the tissues or are negative.
    """
    volume = source.volume
    plan = plan_scan(volume.grid, acquisition, volume.data.dtype)
    outside = gains.get(source.names[-1], 0.0) if background_gain is None else background_gain
    truth = truth_of(source, gains, outside)
    clean = predict(plan.operator, truth.data)
    noisy = add_noise(clean, acquisition.noise_sd, seeded(seed, "ulfsim.simulate:noise"))
    origin = {key: volume.meta[key] for key in ("SourceFile", "SourceSHA256") if key in volume.meta}
    settings = {"Gains": dict(gains), "BackgroundGain": outside, "Seed": seed, "NoiseSD": acquisition.noise_sd}
    scan = Volume(noisy, plan.scan_grid, {**to_json(acquisition), "Simulation": {**settings, **origin}})
    notes = tuple(_notes(volume, truth, source.tissues, plan))
    return Simulation(scan, truth, plan.operator, plan.acquisition, MappingProxyType(dict(gains)), outside, seed, notes)


def calibrated_simulation(
    source: Source, preset: Preset, seed: int, noise_sd: float | None = None
) -> tuple[Calibration, Simulation]:
    """Calibrate gains and noise so that the scan has the SNRs of `preset`, then simulate it.

    `noise_sd` fixes the noise per real channel in units of the source. By default it is the source's own noise where
    that can be measured in air and lets the target be reached; otherwise the scan keeps the source's intensities.
    """
    volume = source.volume
    plan = plan_scan(volume.grid, preset.acquisition, volume.data.dtype)
    measured = response(source, plan)
    air = background_noise(volume.data, source.tissues.mask) if noise_sd is None else None
    given = noise_sd if air is None else air.sd
    calibration = calibrate(source, plan, preset.snr, noise_sd=given, measured=measured)
    if air is not None and calibration.misses_target:
        calibration = calibrate(source, plan, preset.snr, measured=measured)
    acquisition = replace(preset.acquisition, noise_sd=calibration.noise_sd)
    return calibration, simulate(source, acquisition, calibration.gains, seed, calibration.background_gain)


def border_dip(source: Tensor, truth: Tensor, tissues: TissueMap, n_bins: int = 64) -> float:
    """Return how far the truth falls where the source rises, as a fraction of the truth's range.

    Gains may turn the order of intensities over in voxels between two tissues (false rims). The mean truth is taken
    in bins of source intensity between the darkest and the brightest tissue; the largest fall below an earlier bin
    counts on a rising curve, the largest rise on a falling one. Means nothing where the scan reverses the contrast
    between some tissues only.
    """
    levels = [source[core].double().mean() for core in tissue_cores(tissues)[0]]
    low, high = float(min(levels)), float(max(levels))
    inside = tissues.mask & (source >= low) & (source <= high)
    if high <= low or not bool(inside.any()):
        return 0.0
    index = ((source[inside].double() - low) / (high - low) * n_bins).long().clamp(0, n_bins - 1)
    count = torch.bincount(index, minlength=n_bins)
    mean = torch.bincount(index, truth[inside].double(), minlength=n_bins) / count.clamp_min(1)
    curve = mean[count >= max(20, 1e-3 * index.numel())]
    span = float(curve.max() - curve.min()) if curve.numel() else 0.0
    if span == 0:
        return 0.0
    fall = float((curve.cummax(0).values - curve).max())
    rise = float((curve - curve.cummin(0).values).max())
    return min(fall, rise) / span


def _notes(volume: Volume, truth: Volume, tissues: TissueMap, plan: ScanPlan) -> list[str]:
    notes = []
    dip = border_dip(volume.data, truth.data, tissues)
    if dip > 0.02 and _keeps_order(volume, truth, tissues):
        notes.append(f"the gains are not monotone in intensity: dips of {100 * dip:.0f} % at tissue borders")
    object_mm = [volume.grid.spacing_mm[a] for a in scan_axes(volume.grid, plan.acquisition.slice_axis)]
    if any(fine > coarse * 1.001 for fine, coarse in zip(object_mm, plan.scan_grid.spacing_mm, strict=True)):
        notes.append("the source's voxels are larger than the scan's on some axis: nothing finer can be simulated")
    if _touches_edge(truth, plan):
        notes.append(
            "the object touches the edge of its lattice and wraps by one voxel; pad it (ulfsim.plan.with_margin)"
        )
    n_negative = int((volume.data < 0).sum())
    if n_negative:
        notes.append(f"{n_negative} negative values of the source were set to 0")
    return notes


def _keeps_order(volume: Volume, truth: Volume, tissues: TissueMap) -> bool:
    """Whether the tissues, sorted by brightness, come in the same or the exactly opposite order in both images."""
    cores, _ = tissue_cores(tissues)
    before, after = (torch.stack([v.data[core].mean() for core in cores]).argsort() for v in (volume, truth))
    return torch.equal(before, after) or torch.equal(before, after.flip(0))


def _touches_edge(truth: Volume, plan: ScanPlan) -> bool:
    """Whether anything above 5 % of the maximum lies within one scan voxel of a face of the lattice."""
    limit = 0.05 * float(truth.data.max())
    for axis, width_mm in zip(
        scan_axes(truth.grid, plan.acquisition.slice_axis), plan.scan_grid.spacing_mm, strict=True
    ):
        n = truth.grid.shape[axis]
        width = max(1, min(n, round(width_mm / truth.grid.spacing_mm[axis])))
        faces = (truth.data.narrow(axis, start, width) for start in (0, n - width))
        if any(float(face.max()) > limit for face in faces):
            return True
    return False
