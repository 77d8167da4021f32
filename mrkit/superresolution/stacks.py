"""All that precedes a fit to several scans of one person: contrasts, alignment, noise, lattice, start, tissues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from inr.fitting.tissues import Resegment, support
from inr.scans.alignment import Pose, pose_of, posed
from inr.scans.stacks import Stack, Stacks, aligned, mean_of, tikhonov_of
from mrcore.data.grid import Grid, Triple
from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.noise_estimate import NoiseEstimate
from mrcore.segmentation.brainmask import is_skull_stripped
from mrcore.segmentation.tissues import Segmenter
from mrcore.spatial.registration import Matrix, RegisterSettings, register
from mrkit.anatomy.brain import usable
from mrkit.anatomy.finding import find_tissues, weighting
from mrkit.anatomy.segmenters import segmenter_named
from mrkit.progress import stages
from mrkit.superresolution.lattice import foreground_of, lattice_for, on_lattice, within
from mrkit.superresolution.prepare import psf_of, relative_to_wm, require_finer

FIRST_ALIGNMENT = RegisterSettings(dof=6, levels_mm=(8.0, 4.0))
FAR_DEG, FAR_MM = 10.0, 15.0
"""Motion between scans of one session beyond which headers or the alignment are to be doubted."""


@dataclass(frozen=True, eq=False)
class PreparedStacks:
    """Scans of one person ready for a fit.

    Attributes:
        stacks: the data of the fit, in the order of the scans; intensities are relative to the WM of each contrast.
        contrasts: weighting of each channel; the one that was segmented comes first.
        scales: of each channel, intensity of its first scan per intensity of the image.
        noises: of each scan, in its own units.
        output_grid: covers the first scan's field of view; all poses are relative to that scan.
        start: images (C, X, Y, Z) on the lattice of `stacks`.
        foreground: what of the lattice is object (X, Y, Z, bool).
        tissues: on the lattice; `resegment` finds them again in the first image, None where they were given.
    """

    stacks: Stacks
    contrasts: tuple[str, ...]
    scales: tuple[float, ...]
    noises: tuple[NoiseEstimate, ...]
    output_grid: Grid
    start: Tensor
    foreground: Tensor
    tissues: TissueMap
    resegment: Resegment | None
    notes: tuple[str, ...]

    @property
    def lattice(self) -> Grid:
        """The lattice of the fit."""
        return self.stacks.lattice

    def to(self, device: torch.device | str) -> PreparedStacks:
        """Return what the fit works on, moved to `device`; `resegment` works on the CPU wherever its image is."""
        return replace(
            self,
            stacks=self.stacks.to(device),
            start=self.start.to(device),
            foreground=self.foreground.to(device),
            tissues=self.tissues.to(device),
        )


def prepare_stacks(
    scans: Sequence[Volume],
    *,
    voxel_mm: float = 1.0,
    mask: Tensor | None = None,
    tissues: TissueMap | None = None,
    segmenter: Segmenter | None = None,
    weightings: Sequence[str] | None = None,
) -> PreparedStacks:
    """Do all that precedes a fit to several scans of one person, of any orientations and contrasts.

    Args:
        scans: magnitude scans; the first sets the frame, the axes of the result and its field of view.
        voxel_mm: isotropic output voxel.
        mask: brain mask (bool) on the first scan's grid; found otherwise.
        tissues: initial tissue maps on the first scan's grid; found otherwise.
        segmenter: what finds them; by default mrkit's, for the weighting of the scan that is segmented: the first where
            mask or tissues are given, else the first T1w, else the first.
        weightings: BIDS suffix of each scan; told from sidecars and names otherwise. Equal ones share an image.

    Raises:
        BadInputError: scans that cannot be used, or do not overlap; weightings that are not as many as scans.
        GridMismatchError: mask or tissues on another grid than the first scan.
    """
    if not scans or (weightings is not None and len(weightings) != len(scans)):
        raise BadInputError(
            f"several scans need one weighting each, got {len(scans)} scans and {len(weightings or ())} weightings"
        )
    require_finer(voxel_mm, scans[0].grid)
    scans = [usable(scan) for scan in scans]
    said = list(weightings) if weightings is not None else [weighting(scan) for scan in scans]
    seen_first = tissues is not None or mask is not None or "T1w" not in said
    best = 0 if seen_first else said.index("T1w")
    segmenter = segmenter or segmenter_named("mrkit", said[best])
    notes: list[str] = []
    with stages(4) as begin:
        begin("finding brain and tissues")
        seen = find_tissues(scans[best], tissues, mask, segmenter, notes)
        begin("aligning the scans")
        found = _laid_out(scans, said, best, seen, notes)
        lattice, output_grid = lattice_for(found.stacks[0].scan, voxel_mm)
        data = aligned(Stacks(found.stacks, lattice))
        notes += told(data, said)
        begin("solving for smooth images to start from")
        mean = mean_of(data)
        on_fine = on_lattice(_moved(seen, data.stacks[best].pose), lattice)
        noise_sd = max(stack.noise_sd for stack in data.stacks)
        foreground = foreground_of(mean.amax(0), on_fine.mask, noise_sd, lattice)
        data = replace(data, support=foreground)
        start = tikhonov_of(data, mean * foreground).x.clamp_min(0)
        if tissues is None and mask is None and is_skull_stripped(scans[best]):
            on_fine = within(on_fine, support(start[0], on_fine))

        def resegment(image: Tensor) -> Tensor:
            return segmenter(Volume(image.cpu(), lattice), on_fine.mask).tissues.prob.to(image.device)

        begin("segmenting the first")
        first = on_fine if tissues is not None else TissueMap(resegment(start[0]), seen.names, lattice)
    return PreparedStacks(
        data,
        found.contrasts,
        found.scales,
        found.noises,
        output_grid,
        start,
        foreground,
        first,
        None if tissues is not None else resegment,
        tuple(dict.fromkeys(notes)),
    )


@dataclass(frozen=True, eq=False)
class _LaidOut:
    """Scans relative to their WM where the first alignment puts them, their contrasts, scales and noises."""

    stacks: tuple[Stack, ...]
    contrasts: tuple[str, ...]
    scales: tuple[float, ...]
    noises: tuple[NoiseEstimate, ...]


def _laid_out(scans: Sequence[Volume], said: Sequence[str], best: int, seen: TissueMap, notes: list[str]) -> _LaidOut:
    """Register all scans to that of number `best`, whose tissues are `seen`, and take the first one's frame."""
    contrasts = tuple(dict.fromkeys([said[best], *said]))
    motions = [np.eye(4) if n == best else _motion(scan, scans[best], seen) for n, scan in enumerate(scans)]
    parts = [_stack(scan, motion, seen, notes) for scan, motion in zip(scans, motions, strict=True)]
    to_first = np.linalg.inv(motions[0])
    stacks = tuple(
        replace(stack, contrast=contrasts.index(name), pose=_pose(to_first @ motion, stack.scan.grid))
        for (stack, _, _), motion, name in zip(parts, motions, said, strict=True)
    )
    scales = tuple(parts[said.index(name)][2] for name in contrasts)
    return _LaidOut(stacks, contrasts, scales, tuple(noise for _, noise, _ in parts))


def _motion(scan: Volume, fixed: Volume, seen: TissueMap) -> Matrix:
    """Return the rigid motion of `scan` onto `fixed`, from where the headers put it."""
    found = register(scan, fixed, FIRST_ALIGNMENT, fixed_mask=seen.mask, starts=[np.eye(4)])
    return found.motion


def _stack(scan: Volume, motion: Matrix, seen: TissueMap, notes: list[str]) -> tuple[Stack, NoiseEstimate, float]:
    """Return the scan with its WM at 1 as a stack, its noise and the scale between both."""
    there = on_lattice(seen, Grid(scan.grid.shape, motion @ scan.grid.affine))
    if not bool(there.mask.any()):
        raise BadInputError("two of the scans do not overlap; check their headers, or give those of one person only")
    relative, noise, scale = relative_to_wm(scan, TissueMap(there.prob, there.names, scan.grid), notes)
    return Stack(relative, noise.sd / scale, psf_of(scan, notes)), noise, scale


def _pose(motion: Matrix, grid: Grid) -> Pose:
    return Pose() if np.allclose(motion, np.eye(4), atol=1e-12) else pose_of(motion, grid)


def _moved(tissues: TissueMap, pose: Pose) -> TissueMap:
    """Return the tissue maps of a scan where `pose` puts it."""
    return TissueMap(tissues.prob, tissues.names, posed(tissues.grid, pose))


def told(data: Stacks, said: Sequence[str]) -> list[str]:
    """Return a note for each scan but the first: its pose, its scale, and what of it counts less."""
    notes = []
    for number, (stack, name) in enumerate(zip(data.stacks, said, strict=True), start=1):
        less = [] if stack.slice_weights is None else (stack.slice_weights < 0.5).nonzero()[:, 0].tolist()
        if less:
            notes.append(f"scan {number} ({name}): slices {', '.join(map(str, less))} count less, as outliers")
        if number == 1:
            continue
        turn, shift = _mm(stack.pose.turn_deg), _mm(stack.pose.shift_mm)
        notes.append(f"scan {number} ({name}): turned by ({turn}) deg, shifted by ({shift}) mm against the first")
        if stack.pose.angle_deg > FAR_DEG or stack.pose.distance_mm > FAR_MM:
            notes.append(f"scan {number} ({name}) lies far from the first: check that both are of one session")
    return notes


def _mm(values: Triple) -> str:
    return ", ".join(f"{value:.1f}" for value in values)
