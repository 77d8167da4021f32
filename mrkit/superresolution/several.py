"""The verb `superresolve_several`: scans of one person in, one finer image a contrast and shared tissues out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inr.fitting.choice import CHOICE_VOXEL_MM, Choice, choose_tv_weight_of
from inr.fitting.fit import Fit, FitSettings, fit
from inr.fitting.prior import Prior
from inr.rendering import FittedField, fitted_field
from inr.scans.stacks import Stack, Stacks
from inr.voxels import cubic
from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.forward import covering_grid
from mrcore.noise import residual_z
from mrcore.segmentation.tissues import Segmenter
from mrcore.solvers import Solution
from mrcore.spatial.cropping import inner
from mrkit.anatomy.brain import usable
from mrkit.devices import device_of
from mrkit.superresolution.fitting import CPU, settings_for
from mrkit.superresolution.lattice import on_scan
from mrkit.superresolution.stacks import PreparedStacks, prepare_stacks, told


@dataclass(frozen=True, eq=False)
class SuperResolvedSeveral:
    """Scans of one person, super-resolved together.

    Attributes:
        contrasts: weighting of each image; the one that was segmented comes first.
        images: on the output grid, one a contrast, in units of its first scan.
        cubic: cubic interpolations of each contrast's first scan, as its header places it, for comparison.
        tissues: shared by all, on the output grid.
        residuals_z: of each scan, in the order given: (scan - expected) / sd under Rician noise, on its own grid.
        stacks: poses, scales and slice weights that were found.
        solution: how the fit ended.
        notes: what was found and assumed.
        settings: of the fit.
        field: renders image and tissues on any grid; its contrasts are these.
    """

    contrasts: tuple[str, ...]
    images: tuple[Volume, ...]
    cubic: tuple[Volume, ...]
    tissues: TissueMap
    residuals_z: tuple[Volume, ...]
    stacks: tuple[Stack, ...]
    solution: Solution
    notes: tuple[str, ...]
    settings: FitSettings
    field: FittedField


def superresolve_several(
    scans: Sequence[Volume],
    *,
    voxel_mm: float = 1.0,
    mask: Tensor | None = None,
    tissues: TissueMap | None = None,
    segmenter: Segmenter | None = None,
    weightings: Sequence[str] | None = None,
    seed: int = 0,
    settings: FitSettings | None = None,
    prior: Prior | None = None,
    device: str | torch.device = CPU,
) -> SuperResolvedSeveral:
    """Fit one image a contrast and shared tissues to several `scans` of one person.

    Scans of any orientation are aligned rigidly to the first, again within the fit; scans of one weighting share an
    image. Slices that the others contradict count less.

    Args:
        scans: magnitude scans; the first sets the frame, the axes and the field of view of the result.
        voxel_mm: isotropic output voxel.
        mask: brain mask (bool) on the first scan's grid; found otherwise.
        tissues: initial tissue maps on the first scan's grid; found by `segmenter` otherwise.
        segmenter: what finds the initial tissues; by default mrkit's, for the weighting of the scan it works on.
        weightings: BIDS suffix of each scan; told from sidecars and names otherwise.
        seed: of the field's first state.
        settings: of the fit; without them the weight of total variation, where no prior takes its place, is chosen by
            held-out voxels of all scans.
        prior: what pulls the images towards likely ones.
        device: torch device of the fit, such as `cuda`; the prior must work on it. The result is on the CPU.

    Raises:
        BadInputError: fewer than two scans, scans that cannot be used, or whose brain cannot be found, or a device that
            is not there.
        GridMismatchError: mask or tissues on another grid than the first scan.
    """
    if len(scans) < 2:
        raise BadInputError(f"several scans of one person are needed, got {len(scans)}; for one there is superresolve")
    place = device_of(device)
    scans = [usable(scan) for scan in scans]
    ready = prepare_stacks(
        scans, voxel_mm=voxel_mm, mask=mask, tissues=tissues, segmenter=segmenter, weightings=weightings
    )
    notes = list(ready.notes)
    if settings is None:
        settings = settings_for(prior, lambda: chosen_weight_of(ready, place), notes)
    there = ready.to(place)
    done = fit(
        there.stacks,
        ready.lattice,
        there.start,
        there.foreground,
        there.tissues,
        seed,
        settings,
        there.resegment,
        prior,
    )
    return _result(scans, replace(ready, notes=tuple(notes)), done.to(CPU), settings)


def chosen_weight_of(ready: PreparedStacks, device: torch.device = CPU) -> Choice:
    """Return the weight of total variation that predicts held-out voxels of the brain best, on a coarse lattice."""
    voxel_mm = max(CHOICE_VOXEL_MM, *ready.lattice.spacing_mm)
    data = replace(ready.stacks, lattice=covering_grid(ready.lattice, voxel_mm), support=None)
    brain = Volume(ready.tissues.mask.float(), ready.lattice)
    masks = [on_scan(brain, Volume(stack.scan.data, stack.grid)).to(device) for stack in data.stacks]
    return choose_tv_weight_of(data.to(device), masks)


def _result(scans: Sequence[Volume], ready: PreparedStacks, done: Fit, settings: FitSettings) -> SuperResolvedSeveral:
    data = done.data
    if not isinstance(data, Stacks):
        raise TypeError(f"the fit of several scans returned {type(data).__name__}")
    scales = ready.scales
    images = tuple(
        inner(Volume(image * scale, ready.lattice, _meta(scans, data, number)), ready.output_grid)
        for number, (image, scale) in enumerate(zip(done.images, scales, strict=True))
    )
    prob = torch.stack([inner(Volume(p, ready.lattice), ready.output_grid).data for p in done.prob])
    notes = [
        *ready.notes,
        *(f"after the fit, {note}" for note in told(data, [ready.contrasts[s.contrast] for s in data.stacks])),
    ]
    if not done.solution.converged:
        notes.append(f"the fit had not settled: {done.solution.message}")
    return SuperResolvedSeveral(
        ready.contrasts,
        images,
        tuple(cubic(scans[_lead(data, number)], ready.output_grid) for number in range(len(images))),
        TissueMap(prob, ready.tissues.names, ready.output_grid),
        _residuals(data, done.images),
        data.stacks,
        done.solution,
        tuple(notes),
        settings,
        fitted_field(done, settings, ready.tissues.names),
    )


def _lead(data: Stacks, contrast: int) -> int:
    return next(number for number, stack in enumerate(data.stacks) if stack.contrast == contrast)


def _meta(scans: Sequence[Volume], data: Stacks, contrast: int) -> dict[str, object]:
    meta = scans[_lead(data, contrast)].meta
    return {key: value for key, value in meta.items() if key not in ("Acquisition", "Simulation")}


def _residuals(data: Stacks, images: Tensor) -> tuple[Volume, ...]:
    pairs = zip(data.stacks, data.predictions(images), strict=True)
    return tuple(Volume(residual_z(s.scan.data, seen, s.noise_sd), s.scan.grid) for s, seen in pairs)
