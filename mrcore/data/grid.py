"""Grid: a lattice of voxels in the world, RAS+ in millimetres."""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import index
from typing import cast

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from mrcore.errors import BadInputError

Shape3 = tuple[int, int, int]
Triple = tuple[float, float, float]
Affine = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Grid:
    """A voxel lattice: `shape` (X, Y, Z) and `affine` (4 x 4, voxel index to RAS+ world in mm).

    The affine is copied, kept in float64 and read-only. Voxel `n // 2` of an axis is its Fourier origin.

    Raises:
        BadInputError: a shape that is not three positive integers; an affine that is not finite, has a wrong
            last row or cannot be inverted.
    """

    shape: Shape3
    affine: Affine

    def __post_init__(self) -> None:
        try:
            shape = tuple(index(n) for n in self.shape)
        except TypeError:
            shape = ()
        if len(shape) != 3 or min(shape) < 1:
            raise BadInputError(f"a grid needs three positive sizes (X, Y, Z), whole numbers, got {self.shape}")
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise BadInputError("the affine must be a finite 4 x 4 matrix; repair the header of the image")
        if not np.allclose(affine[3], (0, 0, 0, 1)):
            raise BadInputError(f"the last row of the affine must be 0 0 0 1, got {affine[3].tolist()}")
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
        if sizes.min() < 1e-6 or abs(np.linalg.det(affine[:3, :3] / np.maximum(sizes, 1e-12))) < 1e-3:
            raise BadInputError(
                "the affine is singular: its voxel axes are zero or not independent; set a valid sform or qform"
            )
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    def __reduce__(self) -> tuple[type[Grid], tuple[Shape3, Affine]]:
        # Through the constructor, so that a copy in another process is read-only as well.
        return Grid, (self.shape, self.affine)

    def __repr__(self) -> str:
        return f"Grid({self.summary})"

    @property
    def summary(self) -> str:
        """Shape, orientation and voxel size for a reader, such as `176 x 224 x 40 RAS of 1.6 x 1.6 x 5 mm`."""
        shape, size = " x ".join(map(str, self.shape)), " x ".join(f"{s:.4g}" for s in self.spacing_mm)
        return f"{shape} {self.orientation} of {size} mm"

    @property
    def spacing_mm(self) -> Triple:
        """Voxel size along each voxel axis."""
        return cast("Triple", tuple(float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0)))

    @property
    def fov_mm(self) -> Triple:
        """Field of view along each voxel axis, from edge to edge."""
        return cast("Triple", tuple(n * s for n, s in zip(self.shape, self.spacing_mm, strict=True)))

    @property
    def orientation(self) -> str:
        """Codes of the voxel axes, such as `RAS` or `LIA`."""
        return "".join(str(code) for code in nib.aff2axcodes(self.affine))

    @property
    def origin_mm(self) -> NDArray[np.float64]:
        """World position of the Fourier origin, voxel `n // 2`."""
        return to_world(self, np.array([n // 2 for n in self.shape], dtype=np.float64))

    def distance_mm(self, other: Grid) -> float:
        """Return how far apart both grids put the same voxel at most, in mm; infinite where their shapes differ."""
        if self.shape != other.shape:
            return math.inf
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape])).reshape(3, -1).T
        return float(np.linalg.norm(to_world(self, corners) - to_world(other, corners), axis=1).max())

    def matches(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """Whether both grids have the same shape and no voxel differs by more than `tolerance_mm`."""
        return self.distance_mm(other) <= tolerance_mm

    @property
    def shear_mm(self) -> float:
        """How far a corner lies from where it would be if the voxel axes were at right angles."""
        square = self.affine.copy()
        square[:3, :3] = right_angled(directions(self)) * self.spacing_mm
        square[:3, 3] = self.origin_mm - square[:3, :3] @ np.array([n // 2 for n in self.shape])
        return self.distance_mm(Grid(self.shape, square))


def to_world(grid: Grid, voxels: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.float64]:
    """Map voxel coordinates (..., 3) to world positions in mm."""
    out: NDArray[np.float64] = np.asarray(voxels, np.float64) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return out


def to_voxel(grid: Grid, positions_mm: NDArray[np.floating]) -> NDArray[np.float64]:
    """Map world positions (..., 3) in mm to voxel coordinates."""
    inverse = np.linalg.inv(grid.affine)
    out: NDArray[np.float64] = np.asarray(positions_mm, np.float64) @ inverse[:3, :3].T + inverse[:3, 3]
    return out


def grid_about(origin_mm: NDArray[np.floating], directions: Affine, spacing_mm: Triple, shape: Shape3) -> Grid:
    """Build the grid whose Fourier origin (voxel `n // 2`) lies at `origin_mm`.

    `directions` (3 x 3) holds the unit vectors of the voxel axes as columns.
    """
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(directions, np.float64) * np.asarray(spacing_mm, np.float64)
    affine[:3, 3] = np.asarray(origin_mm) - affine[:3, :3] @ np.array([n // 2 for n in shape])
    return Grid(shape, affine)


def directions(grid: Grid) -> Affine:
    """Return the unit vectors of the voxel axes as columns of a 3 x 3 matrix."""
    out: Affine = grid.affine[:3, :3] / np.asarray(grid.spacing_mm)
    return out


def right_angled(axes: Affine) -> Affine:
    """Return the axes (3 x 3, unit vectors as columns) at right angles that are nearest to `axes`."""
    left, _, right = np.linalg.svd(axes)
    out: Affine = left @ right
    return out


def with_spacing(grid: Grid, spacing_mm: Triple) -> Grid:
    """Return the grid of another voxel size over the same field of view, sharing axes and Fourier origin.

    The number of voxels is rounded, so the field of view may differ by up to half a new voxel.

    Raises:
        BadInputError: a voxel size that is not positive, or larger than the field of view.
    """
    if min(spacing_mm) <= 0:
        raise BadInputError(f"a voxel size must be positive, got {spacing_mm} mm")
    shape = cast("Shape3", tuple(round(f / s) for f, s in zip(grid.fov_mm, spacing_mm, strict=True)))
    if min(shape) < 1:
        raise BadInputError(f"voxels of {spacing_mm} mm do not fit the field of view of {grid.fov_mm} mm")
    return grid_about(grid.origin_mm, directions(grid), spacing_mm, shape)


def cropped(grid: Grid, start: Shape3, shape: Shape3) -> Grid:
    """Return the grid of the block that begins at voxel `start` (which may be negative: padding)."""
    affine = grid.affine.copy()
    affine[:3, 3] = to_world(grid, np.array(start, dtype=np.float64))
    return Grid(shape, affine)
