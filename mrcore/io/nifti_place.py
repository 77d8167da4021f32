"""Where the header of an image says that the voxels are, and what is wrong with that."""

from __future__ import annotations

from typing import Any

import numpy as np

from mrcore.data.grid import Affine, Grid, Shape3
from mrcore.errors import BadInputError
from mrcore.notes import Problem, Severity

# nibabel's header classes carry no types.
Header = Any

AGREE_MM = 1e-3
SMALLEST_VOXEL_MM, LARGEST_VOXEL_MM = 0.05, 50.0
_FARTHEST_MM = 1e6
_MM_PER_UNIT = {"meter": 1e3, "micron": 1e-3}


def place(header: Header, shape: tuple[int, ...]) -> tuple[Affine | None, str, list[Problem]]:
    """Return the affine in mm, the unit of length that `header` names, and what is wrong with them.

    The sform is used where it is set, else the qform. The affine is None where none can be read.
    """
    problems: list[Problem] = []
    try:
        affine: Affine = np.array(header.get_best_affine(), np.float64)
    except Exception as error:  # qfac, negative voxel sizes or a quaternion that is none
        return None, "unknown", [Problem(f"the qform cannot be read ({error}); set a valid sform or qform")]
    units = "mm"
    if hasattr(header, "get_xyzt_units"):
        units, more = _units(header)
        problems += more
        affine[:3] *= _MM_PER_UNIT.get(units, 1.0)
        problems += _codes(header, shape)
    elif not int(header["goodRASFlag"]):
        problems.append(
            Problem("the MGH header has no valid position (goodRASFlag 0); orientation is a guess", Severity.CAUTION)
        )
    if np.isfinite(affine).all() and np.abs(affine).max() > _FARTHEST_MM:
        text = f"the affine has numbers up to {np.abs(affine).max():.3g} mm: the header is damaged, convert it again"
        return None, units, [*problems, Problem(text)]
    problems += _grid_problems(shape, affine, units)
    return affine, units, problems


def disagreement_mm(header: Header, shape: tuple[int, ...]) -> float | None:
    """Return how far apart sform and qform of a NIfTI header put a corner; None unless both are set and valid."""
    if int(header["sform_code"]) <= 0 or int(header["qform_code"]) <= 0:
        return None
    try:
        distance_mm = corner_distance_mm(shape, header.get_sform(), header.get_qform())
    except Exception:  # a qform that cannot be read is reported by _codes
        return None
    return distance_mm if np.isfinite(distance_mm) else None


def corner_distance_mm(shape: tuple[int, ...], a: Affine, b: Affine) -> float:
    """Return the largest distance between the places that two affines give to a corner voxel of `shape`."""
    corners = np.array(np.meshgrid(*[(0, max(n - 1, 1)) for n in spatial(shape)])).reshape(3, -1).T
    difference = corners @ (a - b)[:3, :3].T + (a - b)[:3, 3]
    return float(np.linalg.norm(difference, axis=1).max())


def spatial(shape: tuple[int, ...]) -> Shape3:
    """Return the first three sizes, filled with ones."""
    x, y, z = (*shape, 1, 1, 1)[:3]
    return x, y, z


def _units(header: Header) -> tuple[str, list[Problem]]:
    try:
        units = str(header.get_xyzt_units()[0])
    except KeyError:
        code = int(header["xyzt_units"]) % 8
        return "unknown", [
            Problem(f"xyzt_units has no length unit of code {code}; millimetres are assumed", Severity.CAUTION)
        ]
    if units in _MM_PER_UNIT:
        return units, [Problem(f"the header gives lengths in {units}s; they were converted to mm", Severity.CAUTION)]
    return units, []


def _codes(header: Header, shape: tuple[int, ...]) -> list[Problem]:
    """Return what is wrong between sform and qform."""
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    if sform_code <= 0 and qform_code <= 0:
        text = "neither sform nor qform is set: position and orientation (left and right) are unknown, a guess is used"
        return [Problem(text, Severity.CAUTION)]
    if sform_code <= 0 or qform_code <= 0:
        return []
    distance_mm = disagreement_mm(header, shape)
    if distance_mm is None:
        return [Problem("the qform cannot be read; the sform is used", Severity.CAUTION)]
    if distance_mm > AGREE_MM and not _is_rounding(header, shape):
        text = f"sform and qform disagree by {distance_mm:.4g} mm; the sform is used, other programs may use the qform"
        return [Problem(text, Severity.CAUTION)]
    return []


def _is_rounding(header: Header, shape: tuple[int, ...]) -> bool:
    """Whether the qform is the best that the header's float32 quaternion can do for this sform.

    Near a rotation by 180 degrees the quaternion's first part is lost by rounding: up to some hundredths of a mm.
    """
    best = header.copy()
    try:
        best.set_qform(header.get_sform(), strip_shears=False)
    except Exception:  # shears: a qform cannot hold them, the disagreement is real
        return False
    return corner_distance_mm(shape, best.get_qform(), header.get_qform()) <= AGREE_MM


def _grid_problems(shape: tuple[int, ...], affine: Affine, units: str) -> list[Problem]:
    try:
        grid = Grid(spatial(shape), affine)
    except BadInputError as error:
        return [Problem(str(error))]
    low, high = min(grid.spacing_mm), max(grid.spacing_mm)
    if low < SMALLEST_VOXEL_MM or high > LARGEST_VOXEL_MM:
        sizes = " x ".join(f"{s:.4g}" for s in grid.spacing_mm)
        unit_text = f"the header says {units}" if units != "unknown" else "the header gives no unit, mm was assumed"
        text = f"voxels of {sizes} mm are not those of an MRI scan ({unit_text}); repair xyzt_units or the voxel size"
        return [Problem(text)]
    return []
