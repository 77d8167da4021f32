"""Scans in the units and the frame of a fit: WM at one, noise, point spread, and several scans aligned to the first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from torch import Tensor

from inr.scans.alignment import Pose, pose_of, posed
from inr.scans.stacks import Stack, Stacks
from mrcore.data.grid import Grid, Triple
from mrcore.data.volume import TissueMap, Volume, require_same_grid
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.io.bids.resolution import NOTHING_GIVEN, stated_psf
from mrcore.notes import Caution
from mrcore.spatial.registration import Matrix, RegisterSettings, register
from mrcore.spatial.resampling import resample
from mrkit.anatomy.finding import Notes
from mrkit.anatomy.resolution import GIVEN_KEY, psf_of, stated_acquisition
from mrkit.superresolution.lattice import on_lattice
from ulfsim.measurement.band import acquired_voxel_mm, on_acquired_voxels
from ulfsim.measurement.contrast import tissue_cores
from ulfsim.measurement.noise import ScanNoise, noise_core, scan_noise

SMALLEST_NOISE = 1e-3
"""Least noise sd relative to WM: a noise-free scan would make the data term infinitely stiff."""
FIRST_ALIGNMENT = RegisterSettings(dof=6, levels_mm=(8.0, 4.0))
FAR_DEG, FAR_MM = 10.0, 15.0
"""Motion between scans of one session beyond which headers or the alignment are to be doubted."""


@dataclass(frozen=True, eq=False)
class AcquiredScans:
    """Scans on the voxels that were acquired, with `mask` and `tissues` on the grid of the first, where given."""

    scans: tuple[Volume, ...]
    mask: Tensor | None
    tissues: TissueMap | None
    notes: Notes


def as_acquired(scans: Sequence[Volume], mask: Tensor | None, tissues: TissueMap | None) -> AcquiredScans:
    """Return the scans without the voxels that interpolation added: they hold nothing, and count as if they did.

    What the user or a sidecar says of a scan's resolution holds, and it stays as it is; else its band tells.
    """
    found, notes = [], []
    for number, scan in enumerate(scans, start=1):
        seen = scan if _is_stated(scan) else on_acquired_voxels(scan, acquired_voxel_mm(scan, _bright(scan.data)))
        found.append(Volume(seen.data, seen.grid, scan.meta) if seen is not scan else scan)
        if seen is not scan:
            whose = "the scan" if len(scans) == 1 else f"scan {number}"
            text = (
                f"{whose} was interpolated or filtered: it is fitted on the voxels that its detail asks for, "
                f"{_size(seen)} mm, not {_size(scan)} mm"
            )
            notes.append(Caution(text))
    own, grid = scans[0].grid, found[0].grid
    if found[0] is not scans[0] and mask is not None:
        if tuple(mask.shape) != own.shape:
            raise GridMismatchError(f"the mask must have the scan's shape {own.shape}, got {tuple(mask.shape)}")
        mask = resample(Volume(mask.float(), own), grid, order=1).data > 0.5
    if found[0] is not scans[0] and tissues is not None:
        require_same_grid(own, tissues.grid, "the image and its tissue maps")
        tissues = on_lattice(tissues, grid)
    return AcquiredScans(tuple(found), mask, tissues, tuple(notes))


def _bright(data: Tensor) -> Tensor:
    return data > data[data > 0].mean()


def _is_stated(scan: Volume) -> bool:
    """Return whether user or sidecar say how finely the scan was acquired in plane."""
    if scan.meta.get(GIVEN_KEY, NOTHING_GIVEN) != NOTHING_GIVEN or stated_acquisition(scan) is not None:
        return True
    psf, _ = stated_psf(scan.meta, scan.grid)
    return any(axis.band_mm > 0 for axis in psf)


def _size(scan: Volume) -> str:
    return " x ".join(f"{s:.3g}" for s in scan.grid.spacing_mm)


@dataclass(frozen=True, eq=False)
class RelativeScan:
    """A scan with the brighter of WM and GM at one, the `noise_sd` of its fit in its own units, and their `scale`."""

    scan: Volume
    noise_sd: float
    scale: float
    notes: Notes


def relative_to_wm(scan: Volume, tissues: TissueMap, noise_sd: float | None = None) -> RelativeScan:
    """Return the scan relative to the mean of its brighter tissue of WM and GM; `tissues` are on its grid.

    The noise is that of `scan_noise`, the larger one where air and tissue differ widely or only residuals tell it, so
    that the fit does not follow it; it counts as larger by as much as correlated voxels say the same. A `noise_sd` that
    is given is taken as it is.
    """
    cores, _ = tissue_cores(tissues)
    sd, notes = noise_sd, cast("Notes", ("noise: as given",))
    if sd is None:
        sd, notes = _noise_of_fit(scan_noise(scan, tissues.mask, noise_core(tissues)), scan)
    scale = max(float(scan.data[core].mean()) for core, name in zip(cores, tissues.names, strict=True) if name != "CSF")
    if sd < SMALLEST_NOISE * scale:
        sd = SMALLEST_NOISE * scale
        notes = (*notes, Caution("noise below a thousandth of WM is taken as that much"))
    return RelativeScan(Volume(scan.data / scale, scan.grid, scan.meta), sd, scale, notes)


def _noise_of_fit(noise: ScanNoise, scan: Volume) -> tuple[float, Notes]:
    """Return the sd with which voxels count in a fit that takes them as independent, and notes on it."""
    if (stated := stated_acquisition(scan)) is not None:
        x, y, z = (f / v for f, v in zip(stated.noise_fwhm_mm, stated.voxel_mm, strict=True))
        noise = replace(noise, fwhm_voxels=(x, y, z))
    # The band of a stated resolution leaves as many independent voxels as it would hold.
    bands = [s / max(axis.band_mm, s) for axis, s in zip(psf_of(scan)[0], scan.grid.spacing_mm, strict=True)]
    share = min(noise.independent_share, math.prod(bands))
    sd, notes = noise.sd / math.sqrt(share), noise.notes
    if share < 0.95:
        text = f"the noise is coloured: {share:.0%} of the voxels would hold as much, and each counts that much less"
        notes = (*notes, text)
    return sd, notes


@dataclass(frozen=True, eq=False)
class AlignedScans:
    """Scans relative to their WM where the first alignment puts them, in the frame of the first.

    Attributes:
        stacks: one a scan, in the order given.
        contrasts: weighting of each image; that of the segmented scan comes first.
        scales: one a contrast, intensity of its first scan per intensity of the image.
        noise_sds: of each scan in the fit, in its own units.
        notes: what was found and assumed.
    """

    stacks: tuple[Stack, ...]
    contrasts: tuple[str, ...]
    scales: tuple[float, ...]
    noise_sds: tuple[float, ...]
    notes: Notes


def align_scans(scans: Sequence[Volume], weightings: Sequence[str], segmented: int, tissues: TissueMap) -> AlignedScans:
    """Register all scans to that of number `segmented`, whose `tissues` are known, and take the first one's frame.

    Raises:
        BadInputError: scans that do not overlap.
    """
    contrasts = tuple(dict.fromkeys([weightings[segmented], *weightings]))
    fixed = scans[segmented]
    motions = [np.eye(4) if n == segmented else _motion(scan, fixed, tissues) for n, scan in enumerate(scans)]
    parts = [_stack(scan, motion, tissues) for scan, motion in zip(scans, motions, strict=True)]
    to_first = np.linalg.inv(motions[0])
    stacks = tuple(
        replace(part.stack, contrast=contrasts.index(name), pose=_pose(to_first @ motion, part.stack.scan.grid))
        for part, motion, name in zip(parts, motions, weightings, strict=True)
    )
    return AlignedScans(
        stacks,
        contrasts,
        tuple(parts[weightings.index(name)].scale for name in contrasts),
        tuple(part.noise_sd for part in parts),
        tuple(note for part in parts for note in part.notes),
    )


def moved(tissues: TissueMap, pose: Pose) -> TissueMap:
    """Return the tissue maps of a scan where `pose` puts it."""
    return TissueMap(tissues.prob, tissues.names, posed(tissues.grid, pose))


def motion_notes(data: Stacks, weightings: Sequence[str]) -> list[str]:
    """Return a note for each scan but the first: its pose, and what of it counts less."""
    notes: list[str] = []
    for number, (stack, name) in enumerate(zip(data.stacks, weightings, strict=True), start=1):
        less = [] if stack.slice_weights is None else (stack.slice_weights < 0.5).nonzero()[:, 0].tolist()
        if less:
            notes.append(Caution(f"scan {number} ({name}): slices {', '.join(map(str, less))} count less, as outliers"))
        if number == 1:
            continue
        turn, shift = _mm(stack.pose.turn_deg), _mm(stack.pose.shift_mm)
        notes.append(f"scan {number} ({name}): turned by ({turn}) deg, shifted by ({shift}) mm against the first")
        if stack.pose.angle_deg > FAR_DEG or stack.pose.distance_mm > FAR_MM:
            text = f"scan {number} ({name}) lies far from the first: check that both are of one session"
            notes.append(Caution(text, rank=0))
    return notes


@dataclass(frozen=True, eq=False)
class _Part:
    stack: Stack
    noise_sd: float
    scale: float
    notes: Notes


def _motion(scan: Volume, fixed: Volume, tissues: TissueMap) -> Matrix:
    """Return the rigid motion of `scan` onto `fixed`, from where the headers put it."""
    return register(scan, fixed, FIRST_ALIGNMENT, fixed_mask=tissues.mask, starts=[np.eye(4)]).motion


def _stack(scan: Volume, motion: Matrix, tissues: TissueMap) -> _Part:
    """Return the scan with its WM at 1 as a stack, its noise and the scale between both."""
    there = on_lattice(tissues, Grid(scan.grid.shape, motion @ scan.grid.affine))
    if not bool(there.mask.any()):
        raise BadInputError("two of the scans do not overlap; check their headers, or give those of one person only")
    relative = relative_to_wm(scan, TissueMap(there.prob, there.names, scan.grid))
    psf, notes = psf_of(scan)
    stack = Stack(relative.scan, relative.noise_sd / relative.scale, psf)
    return _Part(stack, relative.noise_sd, relative.scale, (*relative.notes, *notes))


def _pose(motion: Matrix, grid: Grid) -> Pose:
    return Pose() if np.allclose(motion, np.eye(4), atol=1e-12) else pose_of(motion, grid)


def _mm(values: Triple) -> str:
    return ", ".join(f"{value:.1f}" for value in values)
