"""All that precedes a fit to one or several scans of one person: brain, tissues, noise, lattice, data and start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inr.fitting.tissues import Resegment, support
from inr.scans.single import OneScan
from inr.scans.stacks import Stacks, aligned, mean_of, tikhonov_of
from inr.voxels import cubic, tikhonov
from mrcore.data.grid import Grid
from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator
from mrcore.scans import as_scan
from mrcore.segmentation.brainmask import is_skull_stripped
from mrcore.segmentation.tissues import Segmenter
from mrkit.anatomy.finding import Notes, find_tissues, weighting, weighting_cautions
from mrkit.anatomy.resolution import psf_of
from mrkit.anatomy.segmenters import segmenter_named
from mrkit.progress import stages
from mrkit.superresolution.lattice import foreground_of, lattice_for, mask_tissues, on_lattice
from mrkit.superresolution.scans import align_scans, motion_notes, moved, relative_to_wm


@dataclass(frozen=True, eq=False)
class Prepared:
    """Scans of one person ready for a fit. Every method that is compared starts from these.

    Attributes:
        scans: relative to their WM, where their headers place them, in the order given.
        data: of the fit; one scan, or several with poses and contrasts. Intensities are relative to WM = 1.
        weightings: BIDS suffix of each scan.
        contrasts: weighting of each image; that of the segmented scan comes first.
        scales: one a contrast, intensity of its first scan per intensity of the image.
        noise_sds: of each scan in the fit, in its own units.
        lattice: of the fit.
        output_grid: covers the first scan's field of view.
        start: images (C, X, Y, Z) on the lattice.
        foreground: what of the lattice is object (X, Y, Z, bool).
        tissues: on the lattice.
        resegment: finds tissues again in the first image; None where they were given. It works on the CPU.
        notes: what was found and assumed.
    """

    scans: tuple[Volume, ...]
    data: OneScan | Stacks
    weightings: tuple[str, ...]
    contrasts: tuple[str, ...]
    scales: tuple[float, ...]
    noise_sds: tuple[float, ...]
    lattice: Grid
    output_grid: Grid
    start: Tensor
    foreground: Tensor
    tissues: TissueMap
    resegment: Resegment | None
    notes: Notes

    def lead(self, contrast: int) -> int:
        """Return the number of the first scan of a contrast."""
        return self.weightings.index(self.contrasts[contrast])

    def placed(self, number: int) -> Volume:
        """Return a scan where the data place it; a single scan lies where its header says."""
        scan = self.scans[number]
        grid = self.data.stacks[number].grid if isinstance(self.data, Stacks) else scan.grid
        return Volume(scan.data, grid, scan.meta)

    def to(self, device: torch.device | str) -> Prepared:
        """Return what the fit works on, moved to `device`; the scans stay where they are."""
        return replace(
            self,
            data=self.data.to(device),
            start=self.start.to(device),
            foreground=self.foreground.to(device),
            tissues=self.tissues.to(device),
        )


def prepare(
    scans: Volume | Sequence[Volume],
    *,
    voxel_mm: float = 1.0,
    mask: Tensor | None = None,
    tissues: TissueMap | None = None,
    segmenter: Segmenter | None = None,
    weightings: Sequence[str] | None = None,
    segment_start: bool = True,
    noise_sd: float | None = None,
) -> Prepared:
    """Do all that precedes a fit: brain, tissues, noise, alignment of several scans, lattice and Tikhonov start.

    Arguments and errors are those of `superresolve`. Without `segment_start` tissues stay those of the scan's own
    voxels: they are not found anew on the fine lattice, which takes longer than all else.
    """
    checked = [as_scan(scan) for scan in ([scans] if isinstance(scans, Volume) else scans)]
    given, doubts = [scan for scan, _ in checked], [note for _, notes in checked for note in notes]
    names = _weightings(given, weightings)
    if weightings is None:
        doubts += [caution for scan in given for caution in weighting_cautions(scan)]
    require_finer(voxel_mm, given[0].grid)
    if noise_sd is not None and (len(given) > 1 or not noise_sd > 0):
        raise BadInputError(f"the noise sd is positive and that of one scan; got {noise_sd} for {len(given)} scans")
    segmented = segmented_scan(names, given=mask is not None or tissues is not None)
    segmenter = segmenter or segmenter_named("mrkit", names[segmented])
    with stages(3 if len(given) == 1 else 4) as begin:
        begin("finding brain and tissues")
        seen, found = find_tissues(given[segmented], tissues, mask, segmenter)
        if len(given) == 1:
            ready = _one(given[0], names, seen, voxel_mm, begin, noise_sd)
        else:
            ready = _several(given, names, segmented, seen, voxel_mm, begin)
        within = ready.tissues
        if tissues is None and mask is None and is_skull_stripped(given[segmented]):
            within = mask_tissues(within, support(ready.start[0], within))

        def resegment(image: Tensor) -> Tensor:
            return segmenter(Volume(image.cpu(), ready.lattice), within.mask).tissues.prob.to(image.device)

        begin("segmenting it")
        first = within
        if segment_start and tissues is None:
            # Tissues are finer where the Tikhonov image is segmented than where those of thick slices are interpolated.
            first = TissueMap(resegment(ready.start[0]), seen.names, ready.lattice)
    return replace(
        ready,
        tissues=first,
        resegment=None if tissues is not None else resegment,
        notes=tuple(dict.fromkeys((*doubts, *found, *ready.notes))),
    )


def segmented_scan(weightings: Sequence[str], *, given: bool) -> int:
    """Return which scan is segmented: the first where its mask or tissues are `given`, else the first T1w, if any."""
    return 0 if given or "T1w" not in weightings else list(weightings).index("T1w")


def require_finer(voxel_mm: float, scan_grid: Grid) -> None:
    """Raise BadInputError unless `voxel_mm` lies between 0.2 mm and the scan's largest voxel, which it may equal.

    At the scan's own voxel the fit takes out blur and noise. Headers hold sizes in float32, so "equal" is to 0.1 %.
    """
    largest_mm = max(scan_grid.spacing_mm)
    if not 0.2 <= voxel_mm <= 1.001 * largest_mm:
        raise BadInputError(
            f"the output voxel must lie between 0.2 mm and the scan's largest voxel ({largest_mm:.3g} mm), got "
            f"{voxel_mm} mm"
        )


def _weightings(scans: Sequence[Volume], weightings: Sequence[str] | None) -> tuple[str, ...]:
    if not scans or (weightings is not None and len(weightings) != len(scans)):
        raise BadInputError(
            f"one scan or more are needed, with a weighting each where any are given; got {len(scans)} scans and "
            f"{len(weightings or ())} weightings"
        )
    return tuple(weightings) if weightings is not None else tuple(map(weighting, scans))


def _one(
    scan: Volume,
    names: tuple[str, ...],
    seen: TissueMap,
    voxel_mm: float,
    begin: Callable[[str], None],
    noise_sd: float | None,
) -> Prepared:
    """Prepare one scan; tissues are those of its voxels on the lattice."""
    begin("solving for a smooth image to start from")
    relative = relative_to_wm(scan, seen, noise_sd)
    relative_sd = relative.noise_sd / relative.scale
    lattice, output_grid = lattice_for(relative.scan, voxel_mm)
    psf, notes = psf_of(scan)
    operator = imaging_operator(lattice, scan.grid, psf)
    interpolated = cubic(relative.scan, lattice).data
    on_fine = on_lattice(seen, lattice)
    foreground = foreground_of(interpolated, on_fine.mask, relative_sd, lattice)
    start = tikhonov(operator, relative.scan.data, relative_sd, interpolated, lattice.spacing_mm).x.clamp_min(0)
    return Prepared(
        scans=(relative.scan,),
        data=OneScan(relative.scan.data, operator, relative_sd),
        weightings=names,
        contrasts=names,
        scales=(relative.scale,),
        noise_sds=(relative.noise_sd,),
        lattice=lattice,
        output_grid=output_grid,
        start=start[None],
        foreground=foreground,
        tissues=on_fine,
        resegment=None,
        notes=(*relative.notes, *notes),
    )


def _several(
    scans: Sequence[Volume],
    names: tuple[str, ...],
    segmented: int,
    seen: TissueMap,
    voxel_mm: float,
    begin: Callable[[str], None],
) -> Prepared:
    """Prepare several scans; tissues are those of the segmented one on the lattice."""
    begin("aligning the scans")
    found = align_scans(scans, names, segmented, seen)
    lattice, output_grid = lattice_for(found.stacks[0].scan, voxel_mm)
    data = aligned(Stacks(found.stacks, lattice))
    begin("solving for smooth images to start from")
    mean = mean_of(data)
    on_fine = on_lattice(moved(seen, data.stacks[segmented].pose), lattice)
    noise_sd = max(stack.noise_sd for stack in data.stacks)
    foreground = foreground_of(mean.amax(0), on_fine.mask, noise_sd, lattice)
    data = replace(data, support=foreground)
    return Prepared(
        scans=tuple(stack.scan for stack in data.stacks),
        data=data,
        weightings=names,
        contrasts=found.contrasts,
        scales=found.scales,
        noise_sds=found.noise_sds,
        lattice=lattice,
        output_grid=output_grid,
        start=tikhonov_of(data, mean * foreground).x.clamp_min(0),
        foreground=foreground,
        tissues=on_fine,
        resegment=None,
        notes=(*found.notes, *motion_notes(data, names)),
    )
