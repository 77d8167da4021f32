"""THE acquisition model: object on a fine lattice in, noise-free scan out. Simulation and fits both call this.

Per axis, one real matrix holds band limitation, slice profile or Gaussian PSF, and the sampling positions in mm:

    W[i, j] = 1/N sum_m M(k_m) cos(2 pi k_m (p_i - x_j)),   k_m = m / (N d),  |m| <= N/2

with N object voxels of d mm at x_j, scan voxels at p_i and the transfer function M. For integer ratios this equals
"FFT, central crop, weights, inverse FFT"; any other ratio, offset or flip works alike. The object lattice is one
period: where the object touches its edge, give the lattice a margin of a scan voxel.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrcore.data.acquisition import AxisPsf, Psf
from mrcore.data.grid import Affine, Grid, Shape3, Triple, directions, grid_about, to_voxel, to_world
from mrcore.errors import BadInputError
from mrcore.operators.indexing import PermuteOp
from mrcore.operators.linop import CPU, LinearOp
from mrcore.operators.separable import SeparableOp
from mrcore.spatial.resampling import ResampleOp, resample_within

_OBLIQUE_VOXELS = 0.01
"""Drift off an object axis, over the whole scan, below which axes are shared: well above rounding in headers."""


def transfer_function(k_cyc_per_mm: NDArray[np.float64], psf: AxisPsf, voxel_mm: float) -> NDArray[np.float64]:
    """Evaluate the transfer function of `psf` at spatial frequencies; 1 at k = 0.

    The edge of the band is 1 / (2 voxel), of the voxel that was acquired. Exactly there truncation keeps half: that
    frequency is shared by both ends of the band. A taper is 1 up to (1 - taper) of the band and falls from there as a
    raised cosine to 0 at its edge.
    """
    k, edge = np.abs(k_cyc_per_mm), 0.5 / max(voxel_mm, psf.band_mm)
    sigma_mm = psf.gaussian_fwhm_mm / math.sqrt(8 * math.log(2))
    out = np.exp(-2 * (math.pi * sigma_mm * k) ** 2 - psf.decay_at_edge * k / edge) * np.sinc(k * psf.box_mm)
    if psf.taper > 0:
        out = out * (0.5 + 0.5 * np.cos(math.pi * np.clip((k / edge - 1) / psf.taper + 1, 0, 1)))
    if psf.truncate:
        # Headers hold voxel sizes in float32, so "exactly" is to 1e-6.
        out = out * np.where(np.isclose(k, edge, rtol=1e-6, atol=0), 0.5, k < edge)
    return out


def axis_matrix(
    n_object: int, positions: NDArray[np.float64], spacing_mm: float, psf: AxisPsf, voxel_mm: float
) -> Tensor:
    """Return W (n_scan, n_object) in float64; `positions` of the scan voxels are in object voxels."""
    m = np.arange(-(n_object // 2), (n_object - 1) // 2 + 1)
    k = m / (n_object * spacing_mm)
    weight = transfer_function(k, psf, voxel_mm)
    harmonics = np.bincount(np.abs(m), weights=weight)
    orders = np.flatnonzero(np.abs(harmonics) > 1e-17)  # a box has negative lobes
    scan, voxel = (2 * np.pi / n_object * np.outer(at, orders) for at in (positions, np.arange(n_object)))
    # cos(a - b) = cos a cos b + sin a sin b makes the sum over k two small matrix products.
    matrix = (np.cos(scan) * harmonics[orders]) @ np.cos(voxel).T + (np.sin(scan) * harmonics[orders]) @ np.sin(voxel).T
    return torch.from_numpy(matrix / n_object)


def imaging_operator(
    object_grid: Grid,
    scan_grid: Grid,
    psf: Psf,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = CPU,
    support: Tensor | None = None,
) -> LinearOp:
    """Build the operator from an object (X, Y, Z) on `object_grid` to the noise-free scan on `scan_grid`.

    `psf` runs along the scan's voxel axes. When both grids share their axes (in any order, flips allowed) the
    operator is one Kronecker product; otherwise the object is first resampled, trilinearly, onto a lattice that is
    aligned to the scan, and what lies outside the object reads 0. Interpolation blurs; the Gaussians of `psf`, as far
    as they are wide enough, are narrowed by its mean, so that the image has the widths that `psf` states.

    Objects that are 0 outside `support` (X, Y, Z, bool) are imaged faster on a CPU by oblique operators, which then
    leave out what is outside; operators along shared axes, and those on a GPU, do not look at it.

    Raises:
        BadInputError: scan voxels that lie outside the object lattice by more than half a scan voxel, or, for oblique
            scans, no scan voxel inside it.
    """
    axes = _shared_axes(object_grid, scan_grid)
    if axes is None:
        _require_overlap(object_grid, scan_grid)
        lattice = _aligned_lattice(object_grid, scan_grid)
        resample: LinearOp = ResampleOp(object_grid, lattice, dtype=dtype, device=device)
        if support is not None and torch.device(device).type == "cpu":
            resample = resample_within(ResampleOp(object_grid, lattice, dtype=dtype), support)
        rest = _without_interpolation(psf, object_grid, lattice)
        return imaging_operator(lattice, scan_grid, rest, dtype, device) @ resample
    ends = to_voxel(object_grid, to_world(scan_grid, np.array([np.zeros(3), np.array(scan_grid.shape) - 1.0])))
    matrices = []
    for a in range(3):
        scan_axis = axes.index(a)
        positions = np.linspace(ends[0, a], ends[1, a], scan_grid.shape[scan_axis])
        voxel_mm = scan_grid.spacing_mm[scan_axis]
        _require_inside(a, positions, object_grid, voxel_mm)
        matrix = axis_matrix(object_grid.shape[a], positions, object_grid.spacing_mm[a], psf[scan_axis], voxel_mm)
        matrices.append(matrix.to(device=device, dtype=dtype))
    separable = SeparableOp((matrices[0], matrices[1], matrices[2]))
    if axes == (0, 1, 2):
        return separable
    return PermuteOp(separable.shape_out, axes, dtype, device) @ separable


def _shared_axes(object_grid: Grid, scan_grid: Grid) -> tuple[int, int, int] | None:
    """Return the object axis that each scan axis runs along; None where a scan axis is oblique to the object."""
    step = np.linalg.solve(object_grid.affine[:3, :3], scan_grid.affine[:3, :3])
    along = np.abs(step).argmax(0)
    # A single slice is judged by its thickness.
    drift = np.abs(step * np.maximum(np.array(scan_grid.shape) - 1, 1))
    drift[along, range(3)] = 0
    if sorted(along) != [0, 1, 2] or drift.sum(1).max() > _OBLIQUE_VOXELS:
        return None
    return int(along[0]), int(along[1]), int(along[2])


def predict(operator: LinearOp, image: Tensor) -> Tensor:
    """Return the noise-free magnitude scan |A x| of an object; simulation adds noise to it, fits compare with it."""
    return operator(image).abs()


def covering_grid(scan_grid: Grid, voxel_mm: float, margin_mm: float = 0.0) -> Grid:
    """Return the isotropic lattice along the scan's axes that covers its field of view plus a margin on each side."""
    shape = cast("Shape3", tuple(math.ceil((f + 2 * margin_mm) / voxel_mm - 1e-6) for f in scan_grid.fov_mm))
    middle = np.array([(n - 1) / 2 for n in scan_grid.shape])
    return grid_centred(to_world(scan_grid, middle), directions(scan_grid), (voxel_mm,) * 3, shape)


def grid_centred(centre_mm: NDArray[np.float64], axes: Affine, spacing_mm: Triple, shape: Shape3) -> Grid:
    """Build the grid whose field of view is centred at `centre_mm`; `axes` (3 x 3) as in `grid_about`."""
    # The Fourier origin sits half a voxel off the centre where the number of voxels is even.
    offset = np.array([n // 2 - (n - 1) / 2 for n in shape]) * spacing_mm
    return grid_about(centre_mm + axes @ offset, axes, spacing_mm, shape)


def _aligned_lattice(object_grid: Grid, scan_grid: Grid) -> Grid:
    """Return a lattice along the scan's axes, as fine as the object, that covers scan and a margin."""
    return covering_grid(scan_grid, min(object_grid.spacing_mm), margin_mm=2 * max(scan_grid.spacing_mm))


def _without_interpolation(psf: Psf, object_grid: Grid, lattice: Grid) -> Psf:
    """Narrow the Gaussians of `psf` by the mean variance that trilinear interpolation onto `lattice` adds.

    Between two voxels of d mm, at the fraction f of their distance, linear interpolation has a variance of
    f (1 - f) d^2.
    """
    voxels = np.stack(np.meshgrid(*(np.arange(0, n, 7) for n in lattice.shape), indexing="ij"), -1)
    fraction = to_voxel(object_grid, to_world(lattice, voxels)) % 1.0
    variance = (fraction * (1 - fraction)).mean((0, 1, 2)) * np.square(object_grid.spacing_mm)
    along = (directions(lattice).T @ directions(object_grid)) ** 2 @ variance
    squared = [axis.gaussian_fwhm_mm**2 - 8 * math.log(2) * v for axis, v in zip(psf, along, strict=True)]
    narrowed = (replace(a, gaussian_fwhm_mm=math.sqrt(max(f, 0.0))) for a, f in zip(psf, squared, strict=True))
    return cast("Psf", tuple(narrowed))


def _require_inside(axis: int, positions: NDArray[np.float64], object_grid: Grid, voxel_mm: float) -> None:
    beyond = max(-positions.min(), positions.max() - (object_grid.shape[axis] - 1)) - 0.5
    beyond_mm = beyond * object_grid.spacing_mm[axis]
    if beyond_mm > 0.5 * voxel_mm + 1e-3:
        raise BadInputError(
            f"the scan leaves the object lattice by {beyond_mm:.1f} mm on axis {axis} of the object; "
            "pad the object, or choose a scan grid inside it"
        )


def _require_overlap(object_grid: Grid, scan_grid: Grid) -> None:
    # 32 points per axis show an overlap of any use.
    samples = (np.linspace(0, n - 1, min(n, 32)) for n in scan_grid.shape)
    voxels = np.stack(np.meshgrid(*samples, indexing="ij"), -1)
    at = to_voxel(object_grid, to_world(scan_grid, voxels))
    if not ((at > -0.5) & (at < np.array(object_grid.shape) - 0.5)).all(-1).any():
        raise BadInputError(
            f"the scan (centre {scan_grid.origin_mm.round(1).tolist()} mm) and the object (centre "
            f"{object_grid.origin_mm.round(1).tolist()} mm) do not overlap; check the headers or register them first"
        )
