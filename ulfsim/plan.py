"""Where a scan lies in a volume: its grid, its operator, and tissue maps as its voxels see them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import nibabel as nib
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from mrcore.data.acquisition import Acquisition
from mrcore.data.grid import (
    Affine,
    Grid,
    Shape3,
    Triple,
    cropped,
    directions,
    grid_about,
    right_angled,
    to_world,
    with_spacing,
)
from mrcore.data.volume import TissueMap, Volume
from mrcore.forward import grid_centred, imaging_operator
from mrcore.operators.linop import LinearOp

_WORLD = ("R", "A", "S")
_SHEAR_VOXELS = 0.1
"""Part of a voxel by which rounding may move a corner off a lattice of right angles."""


@dataclass(frozen=True, eq=False)
class ScanPlan:
    """A scan of an object: both grids and the imaging operator between them."""

    object_grid: Grid
    scan_grid: Grid
    operator: LinearOp
    acquisition: Acquisition


def plan_scan(object_grid: Grid, acquisition: Acquisition, dtype: torch.dtype = torch.float32) -> ScanPlan:
    """Lay a scan over the field of view of `object_grid`, whatever its orientation.

    The scan's axes are those of the object in the order right, anterior, superior, with the one nearest to
    `acquisition.slice_axis` moved to the end, so that voxel size and PSF of `acquisition` fit them as they are; their
    signs stay those of the object. Both grids share the Fourier origin, or the centre on an axis where the object is
    too coarse for that. With `acquisition.tilt_deg` the axes are then turned about the centre of the field of view,
    which grows to the box that holds the whole object. So it does for an object whose axes are not at right angles (an
    image that was transformed): the scan's are, as no scanner samples a sheared lattice.

    Raises:
        BadInputError: voxels that do not fit the field of view.
    """
    order = scan_axes(object_grid, acquisition.slice_axis)
    shape = cast("Shape3", tuple(object_grid.shape[a] for a in order))
    turned = Grid(shape, object_grid.affine[:, [*order, 3]])
    sheared = turned.shear_mm > _SHEAR_VOXELS * min(turned.spacing_mm)
    lay = _tilted if any(acquisition.tilt_deg) or sheared else _straight
    scan_grid = lay(turned, acquisition)
    operator = imaging_operator(object_grid, scan_grid, acquisition.psf, dtype)
    return ScanPlan(object_grid, scan_grid, operator, acquisition)


def tilt_matrix(tilt_deg: Triple) -> Affine:
    """Return the rotation (3 x 3) about R, then A, then S, all fixed in the world: right-handed, in degrees.

    A turn of 90 degrees about S takes R to A, one about R takes A to S, one about A takes S to R.
    """
    matrix: Affine = Rotation.from_euler("xyz", tilt_deg, degrees=True).as_matrix()  # small letters: extrinsic
    return matrix


def _straight(grid: Grid, acquisition: Acquisition) -> Grid:
    """Return the scan's grid along the axes of `grid`, the object's in the scan's order."""
    scan_grid = with_spacing(grid, acquisition.voxel_mm)
    # Voxel n // 2 lies half a voxel above the centre where n is even: an odd scan of a coarse, even object would
    # reach beyond its upper edge, and shares the centre instead of the Fourier origin.
    last = (np.array(scan_grid.shape) - 1 - np.array(scan_grid.shape) // 2) * scan_grid.spacing_mm
    edge = (np.array(grid.shape) - 0.5 - np.array(grid.shape) // 2) * grid.spacing_mm
    beyond = last > edge + 0.5 * np.array(scan_grid.spacing_mm)
    if not beyond.any():
        return scan_grid
    shift = np.where(beyond, -0.5 * np.array(grid.spacing_mm), 0.0)
    axes = directions(grid)
    return grid_about(scan_grid.origin_mm + axes @ shift, axes, scan_grid.spacing_mm, scan_grid.shape)


def _tilted(grid: Grid, acquisition: Acquisition) -> Grid:
    """Return the turned grid over the box that holds the field of view of `grid`."""
    axes = tilt_matrix(acquisition.tilt_deg) @ right_angled(directions(grid))
    box_mm = np.abs(np.linalg.solve(axes, directions(grid) * grid.fov_mm)).sum(1)
    shape = cast("Shape3", tuple(math.ceil(f / v - 1e-6) for f, v in zip(box_mm, acquisition.voxel_mm, strict=True)))
    centre_mm = to_world(grid, (np.array(grid.shape) - 1) / 2)
    return grid_centred(centre_mm, axes, acquisition.voxel_mm, shape)


def scan_axes(grid: Grid, slice_axis: str) -> tuple[int, int, int]:
    """Return the voxel axes of `grid` nearest to R, A and S, with that of `slice_axis` moved to the end."""
    nearest = [int(axis) for axis in nib.orientations.io_orientation(grid.affine)[:, 0]]
    world = [axis for axis in range(3) if axis != _WORLD.index(slice_axis)] + [_WORLD.index(slice_axis)]
    return cast("tuple[int, int, int]", tuple(nearest.index(axis) for axis in world))


def tissues_through(plan: ScanPlan, tissues: TissueMap) -> TissueMap:
    """Return the tissue maps that the scan's voxels see: each map taken through the imaging operator.

    Ringing is clipped and sums above one are scaled back.
    """
    return tissues_seen(plan.operator, tissues, plan.scan_grid)


def tissues_seen(operator: LinearOp, tissues: TissueMap, scan_grid: Grid) -> TissueMap:
    """Return the tissue maps as `tissues_through` does, by the operator of a scan on `scan_grid`."""
    prob = torch.stack([operator(p) for p in tissues.prob.to(operator.dtype)]).clamp_min(0)
    return TissueMap(prob / prob.sum(0).clamp_min(1), tissues.names, scan_grid)


def slice_axis_of(grid: Grid) -> str:
    """Return the world axis (R, A or S) nearest to the axis of the largest voxel size, the last of equal ones."""
    axis = max(range(3), key=lambda a: (round(grid.spacing_mm[a], 3), a))
    return _WORLD[int(nib.orientations.io_orientation(grid.affine)[axis, 0])]


def with_margin(volume: Volume, tissues: TissueMap, margin_mm: float) -> tuple[Volume, TissueMap]:
    """Pad an image and its tissue maps with zeros by at least `margin_mm` on every side.

    The object lattice is one period of the operator: what touches an edge would appear at the opposite one.
    """
    n = [int(np.ceil(margin_mm / s - 1e-9)) for s in volume.grid.spacing_mm]
    shape = cast("Shape3", tuple(s + 2 * k for s, k in zip(volume.grid.shape, n, strict=True)))
    grid = cropped(volume.grid, cast("Shape3", tuple(-k for k in n)), shape)
    widths = [k for a in (2, 1, 0) for k in (n[a], n[a])]
    padded = Volume(torch.nn.functional.pad(volume.data, widths), grid, volume.meta)
    return padded, TissueMap(torch.nn.functional.pad(tissues.prob, widths), tissues.names, grid)
