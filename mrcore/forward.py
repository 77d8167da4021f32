"""THE acquisition model: object on a fine lattice in, noise-free scan out. Simulation and fits both call this.

Per axis, one real matrix holds band limitation, slice profile or Gaussian PSF, and the sampling positions in mm:

    W[i, j] = 1/N sum_m M(k_m) cos(2 pi k_m (p_i - x_j)),   k_m = m / (N d),  |m| <= N/2

with N object voxels of d mm at x_j, scan voxels at p_i and the transfer function M. For integer ratios this equals
"FFT, central crop, weights, inverse FFT"; any other ratio, offset or flip works alike. The object lattice is one
period: where the object touches its edge, give the lattice a margin of a scan voxel.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrcore.acquisition import AxisPsf, Psf
from mrcore.errors import BadInputError
from mrcore.grid import Grid, Shape3, directions, grid_about, to_voxel
from mrcore.linop import LinearOp
from mrcore.ops import CPU, SeparableOp
from mrcore.resample import ResampleOp


def transfer_function(k_cyc_per_mm: NDArray[np.float64], psf: AxisPsf, voxel_mm: float) -> NDArray[np.float64]:
    """Evaluate the transfer function of `psf` at spatial frequencies; 1 at k = 0.

    At exactly |k| = 1 / (2 voxel) truncation keeps half: that frequency is shared by both ends of the band.
    """
    k = np.abs(k_cyc_per_mm)
    sigma_mm = psf.gaussian_fwhm_mm / math.sqrt(8 * math.log(2))
    out = np.exp(-2 * (math.pi * sigma_mm * k) ** 2) * np.sinc(k * psf.box_mm)
    if psf.truncate:
        edge = 0.5 / voxel_mm
        out = out * np.where(np.isclose(k, edge, rtol=1e-9), 0.5, k < edge)
    return out


def axis_matrix(
    n_object: int, positions: NDArray[np.float64], spacing_mm: float, psf: AxisPsf, voxel_mm: float
) -> Tensor:
    """Return W (n_scan, n_object) in float64; `positions` of the scan voxels are in object voxels."""
    m = np.arange(-(n_object // 2), (n_object - 1) // 2 + 1)
    k = m / (n_object * spacing_mm)
    weight = transfer_function(k, psf, voxel_mm)
    phase = 2 * np.pi * (positions[:, None] - np.arange(n_object)[None]) / n_object
    # Summing over m >= 0 with doubled weights is half the work of the full cosine sum.
    harmonics = np.bincount(np.abs(m), weights=weight)
    matrix = np.zeros_like(phase)
    for order, w in enumerate(harmonics):
        if w > 1e-17:
            matrix += w * np.cos(order * phase)
    return torch.from_numpy(matrix / n_object)


def imaging_operator(
    object_grid: Grid,
    scan_grid: Grid,
    psf: Psf,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = CPU,
) -> LinearOp:
    """Build the operator from an object (X, Y, Z) on `object_grid` to the noise-free scan on `scan_grid`.

    `psf` runs along the scan's voxel axes. When both grids share their axes (flips allowed) the operator is one
    Kronecker product; otherwise the object is first resampled onto a lattice that is aligned to the scan.

    Raises:
        BadInputError: scan voxels that lie outside the object lattice by more than half a scan voxel.
    """
    voxels = np.stack([np.eye(3)[a] * (scan_grid.shape[a] - 1) for a in range(3)] + [np.zeros(3)])
    mapped = to_voxel(object_grid, _world(scan_grid, voxels))
    start, ends = mapped[3], mapped[:3]
    off_axis = np.abs((ends - start)[~np.eye(3, dtype=bool)])
    if off_axis.max() > 1e-4:
        lattice = _aligned_lattice(object_grid, scan_grid)
        resample = ResampleOp(object_grid, lattice, dtype=dtype, device=device)
        return imaging_operator(lattice, scan_grid, psf, dtype, device) @ resample
    matrices = []
    for a in range(3):
        positions = np.linspace(start[a], ends[a, a], scan_grid.shape[a])
        _require_inside(a, positions, object_grid, scan_grid)
        matrices.append(
            axis_matrix(object_grid.shape[a], positions, object_grid.spacing_mm[a], psf[a], scan_grid.spacing_mm[a]).to(
                device=device, dtype=dtype
            )
        )
    return SeparableOp((matrices[0], matrices[1], matrices[2]))


def predict(operator: LinearOp, image: Tensor) -> Tensor:
    """Return the noise-free magnitude scan |A x| of an object; simulation adds noise to it, fits compare with it."""
    return operator(image).abs()


def covering_grid(scan_grid: Grid, voxel_mm: float, margin_mm: float = 0.0) -> Grid:
    """Return the isotropic lattice along the scan's axes that covers its field of view plus a margin on each side."""
    shape = cast("Shape3", tuple(math.ceil((f + 2 * margin_mm) / voxel_mm - 1e-6) for f in scan_grid.fov_mm))
    middle = np.array([(n - 1) / 2 for n in scan_grid.shape])
    axes = directions(scan_grid)
    # Field-of-view centres coincide, so the voxel at n // 2 sits half a voxel off when n is even.
    offset = np.array([n // 2 - (n - 1) / 2 for n in shape]) * voxel_mm
    return grid_about(_world(scan_grid, middle) + axes @ offset, axes, (voxel_mm,) * 3, shape)


def _aligned_lattice(object_grid: Grid, scan_grid: Grid) -> Grid:
    """Return a lattice along the scan's axes, as fine as the object, that covers scan and a margin."""
    return covering_grid(scan_grid, min(object_grid.spacing_mm), margin_mm=max(scan_grid.spacing_mm))


def _require_inside(axis: int, positions: NDArray[np.float64], object_grid: Grid, scan_grid: Grid) -> None:
    allowed = 0.5 + 0.5 * scan_grid.spacing_mm[axis] / object_grid.spacing_mm[axis]
    outside = max(-positions.min(), positions.max() - (object_grid.shape[axis] - 1))
    if outside > allowed:
        raise BadInputError(
            f"the scan leaves the object lattice by {outside * object_grid.spacing_mm[axis]:.1f} mm on axis {axis}; "
            "pad the object, or choose a scan grid inside it"
        )


def _world(grid: Grid, voxels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(voxels @ grid.affine[:3, :3].T + grid.affine[:3, 3], np.float64)
