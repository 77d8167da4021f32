"""All that precedes a fit or a simulation: brain, tissues, noise, lattice, operator and start."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inr.baselines import cubic, tikhonov
from inr.tissues import Resegment, support
from mrcore.acquisition import Psf, from_json, gaussian_psf
from mrcore.brainmask import is_skull_stripped, require_reliable, stripped_mask, template_brain_mask
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.forward import imaging_operator
from mrcore.grid import Grid
from mrcore.linop import LinearOp
from mrcore.noise_estimate import NoiseEstimate, estimate_noise
from mrcore.resample import resample
from mrcore.segment import Segmenter
from mrcore.volume import TissueMap, Volume, require_same_grid
from mrkit.lattice import foreground_of, lattice_for
from mrkit.progress import stages
from mrkit.segmenters import segmenter_named, weighting_of
from mrkit.template import load_template
from ulfsim.measure import tissue_cores

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


def on_lattice(tissues: TissueMap, lattice: Grid) -> TissueMap:
    """Interpolate tissue maps linearly; they sum to one inside the mask."""
    prob = torch.stack([resample(Volume(p, tissues.grid), lattice, order=1).data for p in tissues.prob])
    total = prob.sum(0)
    return TissueMap(torch.where(total > 0.5, prob / total.clamp_min(1e-6), 0.0), tissues.names, lattice)


def within(tissues: TissueMap, mask: Tensor) -> TissueMap:
    """Return tissue maps with nothing outside `mask` (X, Y, Z, bool)."""
    return TissueMap(tissues.prob * mask, tissues.names, tissues.grid)


def find_brain(volume: Volume) -> tuple[Tensor, str]:
    """Return a brain mask (bool, X, Y, Z) and how it was found: stripped images as they are, heads by the template.

    Raises:
        BadInputError: a head on which the template does not fit.
        MissingExtraError: a head, without nilearn's template.
    """
    if is_skull_stripped(volume):
        return stripped_mask(volume), "the image is skull-stripped: its own outline is the brain mask"
    template = load_template()
    found = require_reliable(template_brain_mask(volume, template.t1, Volume(template.mask.float(), template.t1.grid)))
    return found.mask, f"brain mask by {found.method}: {found.message}"


def usable(volume: Volume) -> Volume:
    """Return the image in float32, the precision of all that follows; refuse what shows nothing."""
    if volume.data.is_complex():
        raise BadInputError("this needs a magnitude image, got complex data; take its magnitude first")
    data = volume.data.detach().float()
    low, high = float(data.min()), float(data.max())
    if high <= max(low, 0.0):
        raise BadInputError(f"the image has nothing to show: its values run from {low:.4g} to {high:.4g}")
    return Volume(data, volume.grid, volume.meta)


def find_tissues(
    volume: Volume, tissues: TissueMap | None, mask: Tensor | None, segmenter: Segmenter | None, notes: list[str]
) -> TissueMap:
    """Return the given tissue maps, checked, or find them; `notes` learn how.

    Raises:
        BadInputError: maps without WM, or an image whose brain or tissues cannot be found.
        GridMismatchError: maps or mask on another grid.
    """
    if tissues is not None:
        require_same_grid(volume.grid, tissues.grid, "the image and its tissue maps")
        if "WM" not in tissues.names:
            raise BadInputError(f"tissue maps need one named 'WM', got {', '.join(tissues.names)}")
        if mask is None:
            notes.append("tissues: given maps")
            return tissues
        if mask.dtype != torch.bool or mask.shape != volume.data.shape:
            raise GridMismatchError(
                f"the mask must be boolean of shape {volume.grid.shape}, got {mask.dtype} {tuple(mask.shape)}"
            )
        notes.append("tissues: given maps, inside the given mask")
        return TissueMap(tissues.prob * mask, tissues.names, tissues.grid)
    if mask is None:
        mask, how = find_brain(volume)
        notes.append(how)
    found = (segmenter or own_segmenter(volume))(volume, mask)
    notes.append(f"tissues: {found.message if found.method in found.message else f'{found.method}, {found.message}'}")
    return found.tissues


def own_segmenter(volume: Volume) -> Segmenter:
    """Return mrkit's segmenter for the weighting of `volume`."""
    return segmenter_named("mrkit", weighting(volume))


def weighting(volume: Volume) -> str:
    """Return the weighting (BIDS suffix) of `volume`: from its sidecar, its file's name, else T1w."""
    return weighting_of(volume, str(volume.meta.get("SourceFile", "")))


def psf_of(scan: Volume, notes: list[str]) -> Psf:
    """Return the point spread that the sidecar states for this grid, else the assumed one; `notes` learn which."""
    if "Acquisition" in scan.meta:
        acquisition = from_json(scan.meta)
        if all(abs(a - b) < 1e-3 * b for a, b in zip(acquisition.voxel_mm, scan.grid.spacing_mm, strict=True)):
            notes.append("point spread: from the scan's sidecar")
            return acquisition.psf
    notes.append("point spread: assumed, truncation and a Gaussian of one voxel FWHM per axis")
    return gaussian_psf(scan.grid.spacing_mm)
