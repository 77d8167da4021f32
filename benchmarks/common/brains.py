"""Brains for benchmarks: cut out of their files with a margin, scanned by a scanner that the fit does not know."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.results import HERE
from mrcore.data.acquisition import Acquisition, Psf, to_json
from mrcore.data.grid import Grid, Shape3, cropped, to_voxel, to_world
from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.forward import covering_grid, imaging_operator, predict
from mrcore.io.volumes import load_volume
from mrcore.noise import add_noise
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from mrcore.segmentation.brainmask import stripped_mask
from mrcore.segmentation.tissues import segment
from mrcore.spatial.resampling import resample
from ulfsim.plan import plan_scan

DATA = HERE.parents[1] / "shared" / "data" / "t1"
FILES: Mapping[str, str] = MappingProxyType(
    {
        "stroke": "stroke_3T_T1_brain.nii.gz",
        "colin27": "colin27_ch2_brain.nii.gz",
        "openms_p26": "openms_p26_T1_brain_mni1mm.nii.gz",
        "visualqc_id001": "visualqc_id001_brainmask.mgz",
        "niimath": "niimath_T1_brain_0p8mm.nii.gz",
    }
)
"""Skull-stripped T1w brains, by the names that tables use."""
MARGIN_MM = (6.0, 10.0)


@dataclass(frozen=True, eq=False)
class Brain:
    """A skull-stripped brain in zeros: `volume`, its `mask` (bool, X, Y, Z) and `tissues`, on one grid."""

    volume: Volume
    mask: Tensor
    tissues: TissueMap


def load_brain(path: Path, acquisition: Acquisition, voxel_mm: float) -> Brain:
    """Load a skull-stripped brain and cut it out for a scan by `acquisition` and a result at `voxel_mm`."""
    if not path.is_file():
        raise BadInputError(f"no file {path}; say where the brains are with --data, or use --phantom")
    volume = load_volume(path)
    return _brain(volume, stripped_mask(volume), acquisition, voxel_mm)


def phantom_brain(acquisition: Acquisition, voxel_mm: float) -> Brain:
    """Return a small digital head (96 mm) without its skull."""
    head = digital_head(head_grid(32, 96.0), texture=0.03)
    return _brain(head.image, head.mask, acquisition, voxel_mm)


def _brain(volume: Volume, mask: Tensor, acquisition: Acquisition, voxel_mm: float) -> Brain:
    start, shape = _window(volume.grid, mask, acquisition, voxel_mm)
    grid = cropped(volume.grid, start, shape)
    data = _cut((volume.data * mask).clamp_min(0), start, shape)
    cut = Volume(data, grid, {**volume.meta, "SkullStripped": True})
    inside = _cut(mask.float(), start, shape) > 0.5
    return Brain(cut, inside, segment(cut, inside).tissues)


def _window(grid: Grid, mask: Tensor, acquisition: Acquisition, voxel_mm: float) -> tuple[Shape3, Shape3]:
    """Return where the window starts and its shape: the brain and 6 to 10 mm on either side.

    Of these shapes, those count for which the voxels of the result fall onto voxels of the source, or nearest to
    them: a truth that is interpolated half a voxel away is smoother, and flatters smooth methods.
    """
    at = mask.nonzero()
    low, high = at.amin(0).tolist(), (at.amax(0) + 1).tolist()
    start, shape = [0, 0, 0], [0, 0, 0]
    for axis, spacing in enumerate(grid.spacing_mm):
        extent = high[axis] - low[axis]
        least, most = (extent + 2 * m / spacing for m in MARGIN_MM)
        sizes = range(math.ceil(least), math.floor(most) + 1)
        # The first of equals: the smallest margin.
        offsets = [_offset(grid, axis, n, acquisition, voxel_mm) for n in sizes]
        shape[axis] = sizes[offsets.index(min(offsets))]
        start[axis] = low[axis] - (shape[axis] - extent) // 2
    return cast("Shape3", tuple(start)), cast("Shape3", tuple(shape))


def _offset(grid: Grid, axis: int, n: int, acquisition: Acquisition, voxel_mm: float) -> float:
    """Return how far the result's voxels lie from those of a source with `n` voxels on `axis`, in source voxels."""
    shape = list(grid.shape)
    shape[axis] = n
    source = Grid(cast("Shape3", tuple(shape)), grid.affine)
    result = covering_grid(plan_scan(source, acquisition).scan_grid, voxel_mm)
    ends = to_voxel(source, to_world(result, np.array([np.zeros(3), np.array(result.shape) - 1])))[:, axis]
    return round(float(np.abs(ends - np.round(ends)).max()), 3)


def _cut(data: Tensor, start: Shape3, shape: Shape3) -> Tensor:
    """Return the block that begins at voxel `start`; zeros where it leaves the image."""
    out = data.new_zeros(shape)
    low = [max(0, s) for s in start]
    high = [min(n, s + m) for n, s, m in zip(data.shape, start, shape, strict=True)]
    source = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    out[tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))] = data[source]
    return out


def scan_unlike_the_model(truth: Volume, scan_grid: Grid, acquisition: Acquisition, seed: int) -> Volume:
    """Scan `truth` with a PSF 15 % wider than the sidecar says, 2 degrees and half a voxel away from `scan_grid`.

    The scan's grid is the true one: a single scan cannot tell its own pose from that of the head.
    """
    grid = moved(scan_grid, degrees=2.0, voxels=0.5)
    psf = cast("Psf", tuple(replace(p, gaussian_fwhm_mm=1.15 * p.gaussian_fwhm_mm) for p in acquisition.psf))
    clean = predict(imaging_operator(truth.grid, grid, psf), truth.data)
    noisy = add_noise(clean, acquisition.noise_sd, seeded(seed, "benchmarks:scan_unlike_the_model"))
    return Volume(noisy, grid, to_json(acquisition))


def moved(grid: Grid, degrees: float, voxels: float) -> Grid:
    """Return the grid turned about its centre, around (1, 1, 1) of the world, then shifted along all its axes."""
    turn, centre = _about_diagonal(degrees), grid.origin_mm
    affine = grid.affine.copy()
    affine[:3, :3] = turn @ grid.affine[:3, :3]
    affine[:3, 3] = turn @ (grid.affine[:3, 3] - centre) + centre + voxels * affine[:3, :3].sum(1)
    return Grid(grid.shape, affine)


def _about_diagonal(degrees: float) -> NDArray[np.float64]:
    """Return the rotation around (1, 1, 1) by Rodrigues' formula."""
    cross = np.array([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    angle = math.radians(degrees)
    return np.asarray(np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross, np.float64)


def truth_on(truth: Volume, tissues: TissueMap, mask: Tensor, grid: Grid) -> tuple[Volume, TissueMap, Tensor]:
    """Return truth, tissues and mask on a result's grid: cubic, linear and nearest where voxels do not coincide."""
    image = resample(truth, grid, order=3)
    prob = torch.stack([resample(Volume(p, tissues.grid), grid, order=1).data for p in tissues.prob])
    inside = resample(Volume(mask.float(), truth.grid), grid, order=0).data > 0.5
    return Volume(image.data.clamp_min(0), grid), TissueMap(prob.clamp(0, 1), tissues.names, grid), inside
