"""One scan restored by a trained network, tethered to it and audited; arrays to a frozen result."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from iqt.audit.checks import Audit, audit_image
from iqt.files import RestorerCard, TrainedRestorer
from iqt.restoring import Restoration, restore, tethered
from mrcore.data.acquisition import Psf
from mrcore.data.brief import Brief
from mrcore.data.grid import Grid, Triple
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.forward import covering_grid, imaging_operator
from mrcore.notes import Caution
from mrcore.operators.separable import SeparableOp
from mrcore.scans import as_scan
from mrcore.spatial.cropping import crop_to
from mrcore.spatial.resampling import resample
from mrkit.anatomy.brain import find_brain
from mrkit.anatomy.resolution import psf_of
from ulfsim.cubes.anatomy import LEVEL_QUANTILE
from ulfsim.measurement.noise import ScanNoise, given_noise, scan_noise

TRUST_SD = 0.06
"""Error that the network's image is trusted to have, relative to that level; the scan overrules it beyond."""

_SOFT_MM = 2.0


@dataclass(frozen=True, eq=False, repr=False)
class Enhanced(Brief):
    """A restored scan, in the scan's own units.

    Attributes:
        image: inside the brain what the network restored, tethered to the scan; outside the Wiener estimate.
        start: the Wiener estimate everywhere: what physics and noise alone allow.
        sd: spread over mirrored copies, the least that the network may err by; None of a single pass.
        residual_z: local residuals on the scan's grid, in units of their sd.
        mask: the brain on the scan's grid.
        audit: what the scan says of the image.
        notes: what was found and assumed, and the verdict of the audit.
    """

    image: Volume
    start: Volume
    sd: Volume | None
    residual_z: Volume
    mask: Tensor
    audit: Audit
    notes: tuple[str, ...]


def enhance(
    scan: Volume,
    restorer: TrainedRestorer,
    *,
    mask: Tensor | None = None,
    voxel_mm: float = 1.0,
    noise_sd: float | None = None,
    psf: Psf | None = None,
    n_mirrored: int = 8,
    trust_sd: float = TRUST_SD,
    force: bool = False,
) -> Enhanced:
    """Restore one low-field magnitude scan by a trained network.

    The start is the exact Gaussian estimate through the acquisition's own operator; the network adds what it learnt of
    heads; the exact data step then moves the result towards the scan wherever it contradicts it by more than
    `trust_sd` (relative to bright tissue). The result is synthetic beyond the scan's own resolution.

    Args:
        scan: magnitude image of a head or a skull-stripped brain.
        restorer: from `load_restorer`.
        mask: brain (X, Y, Z, bool) on the scan's grid; found where it is not given.
        voxel_mm: of the result; the network was trained at about 1.
        noise_sd: per real channel, in the scan's units; estimated where it is not given.
        psf: point spread along the scan's voxel axes; by the sidecar, else assumed, where it is not given.
        n_mirrored: passes, 1 to 8, over mirrored copies; their mean is better than one, their spread is `sd`.
        trust_sd: error that the network is trusted to have; inf switches the tether off.
        force: go on where the scan lies outside what the network was trained on.

    Raises:
        BadInputError: a scan outside the network's ranges, a brain that cannot be found, numbers out of range.
    """
    scan, seen = as_scan(scan)
    if mask is None:
        mask, how = find_brain(scan)
    else:
        how = ("brain mask: given",)
    level = float(scan.data[mask].quantile(LEVEL_QUANTILE)) if bool(mask.any()) else 0.0
    if level <= 0:
        raise BadInputError("the scan shows nothing inside the brain mask; is the mask on the scan's grid?")
    noise = _noise(scan, mask, noise_sd)
    point_spread, psf_notes = (psf, ("point spread: as given",)) if psf is not None else psf_of(scan)
    order = _slices_last(scan.grid)
    turned, inside = _turned(scan, order), mask.permute(order)
    spread = cast("Psf", tuple(point_spread[axis] for axis in order))
    outside = out_of_range(restorer.card, turned.grid.spacing_mm, level / noise.sd)
    if outside and not force:
        raise BadInputError(f"{'; '.join(outside)}; use --force to go on all the same")
    output = covering_grid(turned.grid, voxel_mm)
    lattice = covering_grid(turned.grid, voxel_mm, math.ceil(max(turned.grid.spacing_mm) / voxel_mm) * voxel_mm)
    operator = imaging_operator(lattice, turned.grid, spread)
    if not isinstance(operator, SeparableOp):
        raise BadInputError(f"the scan's grid is sheared, {turned.grid}; resample it to an orthogonal one first")
    relative, sd = turned.data / level, noise.sd / level
    done = restore(restorer.net, operator, relative, sd, turned.grid.spacing_mm, voxel_mm, n_mirrored)
    image = _composed(done, operator, relative, sd, trust_sd, _on_lattice(inside, turned.grid, lattice))
    volume, start = (crop_to(Volume(part * level, lattice), output) for part in (image, done.start))
    colour = noise.fwhm_voxels[order[0]], noise.fwhm_voxels[order[1]], noise.fwhm_voxels[order[2]]
    drawn = Volume(image * level, lattice)
    verdict = audit_image(turned, drawn, spread, noise.sd, inside, noise_fwhm_voxels=colour, same_units=True)
    back = tuple(int(i) for i in np.argsort(order))
    return Enhanced(
        image=_turned(volume, back),
        start=_turned(start, back),
        sd=None if done.spread is None else _turned(crop_to(Volume(done.spread * level, lattice), output), back),
        residual_z=Volume(verdict.residual.z.permute(back), scan.grid),
        mask=mask,
        audit=verdict,
        notes=(*(Caution(text) for text in outside), *seen, *verdict.findings, *how, *noise.notes, *psf_notes),
    )


def out_of_range(card: RestorerCard, spacing_mm: Triple, snr: float) -> tuple[str, ...]:
    """Return in which respects a scan lies outside what a network was trained on, a tenth beyond its ranges allowed."""
    in_plane, slices = math.sqrt(spacing_mm[0] * spacing_mm[1]), spacing_mm[2]
    asked = (
        ("its voxels in plane are", in_plane, card.voxel_mm[0], "mm"),
        ("its slices are", slices, card.voxel_mm[1], "mm"),
        ("its SNR is", snr, card.wm_snr, ""),
    )
    return tuple(
        f"the network was not trained on such a scan: {what} {value:.3g} {unit}".rstrip()
        + f", trained on {low:.3g} to {high:.3g}"
        for what, value, (low, high), unit in asked
        if not 0.9 * low <= value <= 1.1 * high
    )


def _composed(
    done: Restoration, operator: SeparableOp, scan: Tensor, noise_sd: float, trust_sd: float, inside: Tensor
) -> Tensor:
    """Return the tethered image, inside the brain the network's and outside the start, with a soft seam."""
    mixed = inside * done.image + (1 - inside) * done.start
    if math.isfinite(trust_sd):
        mixed = tethered(mixed, operator, scan, noise_sd, trust_sd)
    return mixed.clamp_min(0)


def _noise(scan: Volume, mask: Tensor, given: float | None) -> ScanNoise:
    if given is None:
        return scan_noise(scan, mask)
    if not 0 < given < math.inf:
        raise BadInputError(f"noise_sd is positive and in the units of the scan, got {given}")
    return given_noise(given)


def _slices_last(grid: Grid) -> tuple[int, int, int]:
    """Return the axes of the grid with the thickest voxels last, the others in their order."""
    thick = int(np.argmax(grid.spacing_mm)) if max(grid.spacing_mm) > 1.05 * min(grid.spacing_mm) else 2
    a, b = (axis for axis in range(3) if axis != thick)
    return a, b, thick


def _turned(volume: Volume, order: tuple[int, ...]) -> Volume:
    """Return the same image with its axes in another order."""
    affine = volume.grid.affine.copy()
    affine[:, :3] = affine[:, list(order)]
    shape = tuple(volume.grid.shape[axis] for axis in order)
    return Volume(volume.data.permute(order).contiguous(), Grid((shape[0], shape[1], shape[2]), affine), volume.meta)


def _on_lattice(mask: Tensor, grid: Grid, lattice: Grid) -> Tensor:
    """Return the brain on the lattice, 0 to 1, with a seam of some millimetres outside it."""
    fine = resample(Volume(mask.float(), grid), lattice, order=1).data
    sigma = _SOFT_MM / min(lattice.spacing_mm)
    reach = math.ceil(2 * sigma)
    grown = ndimage.maximum_filter((fine > 0.5).float().numpy(), 2 * reach + 1, mode="constant")
    return torch.from_numpy(ndimage.gaussian_filter(grown, sigma, radius=reach, mode="constant"))
