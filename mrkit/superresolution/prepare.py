"""All that precedes a fit or a simulation: brain, tissues, noise, lattice, operator and start."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inr.fitting.tissues import Resegment, support
from inr.voxels import cubic, tikhonov
from mrcore.data.acquisition import Psf, from_json, gaussian_psf
from mrcore.data.grid import Grid
from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator
from mrcore.noise_estimate import NoiseEstimate, estimate_noise
from mrcore.operators.linop import LinearOp
from mrcore.segmentation.brainmask import is_skull_stripped
from mrcore.segmentation.tissues import Segmenter
from mrkit.anatomy.brain import usable
from mrkit.anatomy.finding import find_tissues, own_segmenter
from mrkit.progress import stages
from mrkit.superresolution.lattice import foreground_of, lattice_for, on_lattice, within
from ulfsim.measurement.contrast import tissue_cores

SMALLEST_NOISE = 1e-3
"""Least noise sd relative to WM: a noise-free scan would make the data term infinitely stiff."""


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """A scan ready for a fit: intensities relative to `scale`, lattice, operator, start, foreground, tissues.

    Every method that is compared starts from these.
    """

    scan: Volume
    scale: float
    noise: NoiseEstimate
    lattice: Grid
    output_grid: Grid
    operator: LinearOp
    start: Tensor
    foreground: Tensor
    tissues: TissueMap
    resegment: Resegment | None
    notes: tuple[str, ...]

    @property
    def noise_sd(self) -> float:
        """Noise per real channel, relative to `scale`."""
        return self.noise.sd / self.scale

    def to(self, device: torch.device | str) -> PreparedScan:
        """Return what the fit works on, moved to `device`; `resegment` works on the CPU wherever its image is."""
        return replace(
            self,
            scan=self.scan.to(device),
            operator=self.operator.to(device),
            start=self.start.to(device),
            foreground=self.foreground.to(device),
            tissues=self.tissues.to(device),
        )


def prepare(
    scan: Volume,
    *,
    voxel_mm: float = 1.0,
    mask: Tensor | None = None,
    tissues: TissueMap | None = None,
    segmenter: Segmenter | None = None,
    segment_start: bool = True,
) -> PreparedScan:
    """Do all that precedes a fit: brain, tissues, noise, lattice, operator and a Tikhonov start.

    Arguments and errors are those of `superresolve`. Without `segment_start` tissues stay those of the scan's own
    voxels: they are not found anew on the fine lattice, which takes longer than all else.
    """
    require_finer(voxel_mm, scan.grid)
    scan = usable(scan)
    notes: list[str] = []
    given = tissues is not None
    segmenter = segmenter or own_segmenter(scan)
    with stages(3) as begin:
        begin("finding brain and tissues")
        seen = find_tissues(scan, tissues, mask, segmenter, notes)
        begin("solving for a smooth image to start from")
        relative, noise, scale = relative_to_wm(scan, seen, notes)
        lattice, output_grid = lattice_for(relative, voxel_mm)
        operator = imaging_operator(lattice, scan.grid, psf_of(scan, notes))
        interpolated = cubic(relative, lattice).data
        on_fine = on_lattice(seen, lattice)
        foreground = foreground_of(interpolated, on_fine.mask, noise.sd / scale, lattice)
        start = tikhonov(operator, relative.data, noise.sd / scale, interpolated, lattice.spacing_mm).x.clamp_min(0)
        if not given and mask is None and is_skull_stripped(scan):
            on_fine = within(on_fine, support(start, on_fine))

        def resegment(image: Tensor) -> Tensor:
            return segmenter(Volume(image.cpu(), lattice), on_fine.mask).tissues.prob.to(image.device)

        begin("segmenting it")
        # Tissues are finer where the Tikhonov image is segmented than where those of the thick slices are interpolated.
        again = segment_start and not given
        first = TissueMap(resegment(start), seen.names, lattice) if again else on_fine
    return PreparedScan(
        relative,
        scale,
        noise,
        lattice,
        output_grid,
        operator,
        start,
        foreground,
        first,
        None if given else resegment,
        tuple(notes),
    )


def require_finer(voxel_mm: float, scan_grid: Grid) -> None:
    """Raise BadInputError unless `voxel_mm` lies between 0.2 mm and the scan's largest voxel."""
    if not 0.2 <= voxel_mm <= max(scan_grid.spacing_mm):
        raise BadInputError(
            f"the output voxel must lie between 0.2 mm and the scan's largest voxel "
            f"({max(scan_grid.spacing_mm):.3g} mm), got {voxel_mm} mm"
        )


def relative_to_wm(scan: Volume, tissues: TissueMap, notes: list[str]) -> tuple[Volume, NoiseEstimate, float]:
    """Return the scan with its brighter of WM and GM at one, its noise, and the scale between both."""
    cores, _ = tissue_cores(tissues)
    noise = estimate_noise(scan.data, tissues.mask, cores[tissues.names.index("WM")])
    notes.append(noise.message)
    scale = max(float(scan.data[core].mean()) for core, name in zip(cores, tissues.names, strict=True) if name != "CSF")
    if noise.sd < SMALLEST_NOISE * scale:
        noise = replace(noise, sd=SMALLEST_NOISE * scale)
        notes.append("noise below a thousandth of WM is taken as that much")
    return Volume(scan.data / scale, scan.grid, scan.meta), noise, scale


def psf_of(scan: Volume, notes: list[str]) -> Psf:
    """Return the point spread that the sidecar states for this grid, else the assumed one; `notes` learn which."""
    if "Acquisition" in scan.meta:
        acquisition = from_json(scan.meta)
        if all(abs(a - b) < 1e-3 * b for a, b in zip(acquisition.voxel_mm, scan.grid.spacing_mm, strict=True)):
            notes.append("point spread: from the scan's sidecar")
            return acquisition.psf
    notes.append("point spread: assumed, truncation and a Gaussian of one voxel FWHM per axis")
    return gaussian_psf(scan.grid.spacing_mm)
