"""Where the header of an image says that the voxels are, and what is wrong with that."""

from __future__ import annotations

from collections.abc import Iterable
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
_SHEAR_VOXELS = 0.1
_MM_PER_UNIT = {"meter": 1e3, "micron": 1e-3}


def place(header: Header, shape: tuple[int, ...]) -> tuple[Affine | None, str, list[Problem]]:
    """Return the affine in mm, the unit of length that `header` names, and what is wrong with them.

    The sform is used where it is set, else the qform, which is read as the NIfTI-1 standard and its library do: a
    qfac (`pixdim[0]`) that is not negative is 1, voxel sizes are positive. The affine is None where none can be read.
    """
    problems: list[Problem] = []
    is_nifti = hasattr(header, "get_xyzt_units")
    if is_nifti:
        problems += _sizes(header)
        header = standard_sizes(header)
    try:
        affine: Affine = np.array(header.get_best_affine(), np.float64)
    except Exception as error:  # a quaternion that is none
        return None, "unknown", [Problem(f"the qform cannot be read ({error}); set a valid sform or qform")]
    units = "mm"
    if is_nifti:
        units, more = _units(header)
        problems += more
        affine[:3] *= mm_per_unit(header)
        problems += _codes(header, shape)
    if np.isfinite(affine).all() and np.abs(affine).max() > _FARTHEST_MM:
        text = f"the affine has numbers up to {np.abs(affine).max():.3g} mm: the header is damaged, convert it again"
        return None, units, [*problems, Problem(text)]
    problems += _grid_problems(shape, affine, units)
    return affine, units, problems


def standard_sizes(header: Header) -> Header:
    """Return a NIfTI header with a qfac of 1 or -1 and positive voxel sizes."""
    pixdim = np.array(header["pixdim"])
    fixed = header.copy()
    fixed["pixdim"][0] = -1.0 if pixdim[0] < 0 else 1.0
    fixed["pixdim"][1:4] = np.abs(pixdim[1:4])
    return fixed


def mm_per_unit(header: Header) -> float:
    """Return how many mm the unit of length of a NIfTI header has; 1 where it names none."""
    try:
        return _MM_PER_UNIT.get(str(header.get_xyzt_units()[0]), 1.0)
    except KeyError:
        return 1.0


def disagreement_mm(header: Header, shape: tuple[int, ...]) -> float | None:
    """Return how far apart sform and qform of a NIfTI header put a corner; None unless both are set and valid."""
    if int(header["sform_code"]) <= 0 or int(header["qform_code"]) <= 0:
        return None
    header = standard_sizes(header)
    try:
        distance = corner_distance_mm(shape, header.get_sform(), header.get_qform())
    except Exception:  # a qform that cannot be read is reported by _codes
        return None
    return distance * mm_per_unit(header) if np.isfinite(distance) else None


def corner_distance_mm(shape: tuple[int, ...], a: Affine, b: Affine) -> float:
    """Return the largest distance between the places that two affines give to a corner voxel of `shape`."""
    corners = np.array(np.meshgrid(*[(0, max(n - 1, 1)) for n in spatial(shape)])).reshape(3, -1).T
    difference = corners @ (a - b)[:3, :3].T + (a - b)[:3, 3]
    return float(np.linalg.norm(difference, axis=1).max())


def spatial(shape: tuple[int, ...]) -> Shape3:
    """Return the first three sizes, filled with ones."""
    x, y, z = (*shape, 1, 1, 1)[:3]
    return x, y, z


def _sizes(header: Header) -> list[Problem]:
    """Return what is wrong with the voxel sizes and the qfac of a qform that is used."""
    if int(header["sform_code"]) > 0 or int(header["qform_code"]) <= 0:
        return []
    pixdim = np.array(header["pixdim"], np.float64)
    problems = []
    if pixdim[0] not in (-1, 0, 1):
        taken = -1 if pixdim[0] < 0 else 1
        text = f"qfac (pixdim[0]) is {pixdim[0]:.4g} and must be 1 or -1: {taken} is taken; check left and right"
        problems.append(Problem(text, Severity.CAUTION))
    if (pixdim[1:4] < 0).any():
        text = f"voxel sizes are negative ({_by(pixdim[1:4])}): taken as positive, the axes are those of the qform"
        problems.append(Problem(text, Severity.CAUTION))
    return problems


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
    distance_mm = corner_distance_mm(shape, best.get_qform(), header.get_qform()) * mm_per_unit(header)
    return distance_mm <= AGREE_MM


def _grid_problems(shape: tuple[int, ...], affine: Affine, units: str) -> list[Problem]:
    try:
        grid = Grid(spatial(shape), affine)
    except BadInputError as error:
        return [Problem(str(error))]
    if not _is_plausible(grid.spacing_mm):
        return [Problem(f"voxels of {_by(grid.spacing_mm)} mm are not those of an MRI scan: {_unit_text(grid, units)}")]
    # Rounded axes are sheared by some hundredths of a voxel.
    if grid.shear_mm > _SHEAR_VOXELS * min(grid.spacing_mm):
        text = (
            f"the voxel axes are not at right angles (sheared by {grid.shear_mm:.2g} mm at a corner): no scanner makes "
            "such an image; it was transformed, and should be resampled"
        )
        return [Problem(text, Severity.CAUTION)]
    return []


def _is_plausible(spacing_mm: tuple[float, ...]) -> bool:
    return min(spacing_mm) >= SMALLEST_VOXEL_MM and max(spacing_mm) <= LARGEST_VOXEL_MM


def _unit_text(grid: Grid, units: str) -> str:
    """Say what the sizes are in the header's own unit, and in which unit they would be plausible."""
    own = [s / _MM_PER_UNIT.get(units, 1.0) for s in grid.spacing_mm]
    said = f"the header says {_by(own)} {units}" if units != "unknown" else "the header gives no unit, mm was assumed"
    for name, factor in (("mm", 1.0), *_MM_PER_UNIT.items()):
        sizes = [s * factor for s in own]
        if name != units and _is_plausible(tuple(sizes)):
            return f"{said}; in {name} they would be {_by(sizes)} mm: repair xyzt_units"
    return f"{said}; repair xyzt_units or the voxel size"


def _by(sizes: Iterable[float]) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)
