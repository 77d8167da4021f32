"""Scans in the units and the frame of a fit: WM at one, noise, point spread, and several scans aligned to the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from inr.scans.alignment import Pose, pose_of, posed
from inr.scans.stacks import Stack, Stacks
from mrcore.data.acquisition import Psf, from_json
from mrcore.data.grid import Grid, Triple
from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.io.bids.resolution import NOTHING_GIVEN, GivenResolution, stated_psf
from mrcore.noise_estimate import NoiseEstimate, estimate_noise
from mrcore.notes import Caution
from mrcore.spatial.registration import Matrix, RegisterSettings, register
from mrkit.anatomy.finding import Notes
from mrkit.superresolution.lattice import on_lattice
from ulfsim.measurement.contrast import tissue_cores

SMALLEST_NOISE = 1e-3
"""Least noise sd relative to WM: a noise-free scan would make the data term infinitely stiff."""
GIVEN_KEY = "GivenResolution"
"""Key of a scan's `meta` under which `with_resolution` puts what its user says."""
FIRST_ALIGNMENT = RegisterSettings(dof=6, levels_mm=(8.0, 4.0))
FAR_DEG, FAR_MM = 10.0, 15.0
"""Motion between scans of one session beyond which headers or the alignment are to be doubted."""


@dataclass(frozen=True, eq=False)
class RelativeScan:
    """A scan with the brighter of WM and GM at one, its `noise` in its own units, and the `scale` between both."""

    scan: Volume
    noise: NoiseEstimate
    scale: float
    notes: Notes


def relative_to_wm(scan: Volume, tissues: TissueMap) -> RelativeScan:
    """Return the scan relative to the mean of its brighter tissue of WM and GM; `tissues` are on its grid."""
    cores, _ = tissue_cores(tissues)
    noise = estimate_noise(scan.data, tissues.mask, cores[tissues.names.index("WM")])
    notes: Notes = (noise.message if noise.plausible else Caution(noise.message),)
    scale = max(float(scan.data[core].mean()) for core, name in zip(cores, tissues.names, strict=True) if name != "CSF")
    if noise.sd < SMALLEST_NOISE * scale:
        noise = replace(noise, sd=SMALLEST_NOISE * scale)
        notes = (*notes, Caution("noise below a thousandth of WM is taken as that much"))
    return RelativeScan(Volume(scan.data / scale, scan.grid, scan.meta), noise, scale, notes)


def with_resolution(scan: Volume, given: GivenResolution) -> Volume:
    """Return the scan with what its user says of its resolution, which `psf_of` takes before all else."""
    return scan if given == NOTHING_GIVEN else Volume(scan.data, scan.grid, {**scan.meta, GIVEN_KEY: given})


def psf_of(scan: Volume) -> tuple[Psf, Notes]:
    """Return the point spread of a scan, and notes on where it is from.

    What the user gave comes first, then what a sidecar of mrkit states for this grid, then what that of a converter
    says of slices and acquired matrix; one voxel on every axis where nothing is said.
    """
    given = scan.meta.get(GIVEN_KEY, NOTHING_GIVEN)
    if not isinstance(given, GivenResolution):
        raise BadInputError(f"{GIVEN_KEY} in the meta of a scan must be a GivenResolution, got {given!r}")
    if given == NOTHING_GIVEN and "Acquisition" in scan.meta:
        acquisition = from_json(scan.meta)
        if all(abs(a - b) < 1e-3 * b for a, b in zip(acquisition.voxel_mm, scan.grid.spacing_mm, strict=True)):
            return acquisition.psf, ("point spread: from the scan's sidecar",)
    psf, notes = stated_psf(scan.meta, scan.grid, given)
    return psf, notes or ("point spread: assumed, truncation and a Gaussian of one voxel FWHM per axis",)


@dataclass(frozen=True, eq=False)
class AlignedScans:
    """Scans relative to their WM where the first alignment puts them, in the frame of the first.

    Attributes:
        stacks: one a scan, in the order given.
        contrasts: weighting of each image; that of the segmented scan comes first.
        scales: one a contrast, intensity of its first scan per intensity of the image.
        noises: one a scan, in its own units.
        notes: what was found and assumed.
    """

    stacks: tuple[Stack, ...]
    contrasts: tuple[str, ...]
    scales: tuple[float, ...]
    noises: tuple[NoiseEstimate, ...]
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
        tuple(part.noise for part in parts),
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
    noise: NoiseEstimate
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
    stack = Stack(relative.scan, relative.noise.sd / relative.scale, psf)
    return _Part(stack, relative.noise, relative.scale, (*relative.notes, *notes))


def _pose(motion: Matrix, grid: Grid) -> Pose:
    return Pose() if np.allclose(motion, np.eye(4), atol=1e-12) else pose_of(motion, grid)


def _mm(values: Triple) -> str:
    return ", ".join(f"{value:.1f}" for value in values)
