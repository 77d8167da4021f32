"""Reading the bytes of NIfTI-1/2 and MGH images: every problem is found and said, none is repaired in silence."""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from numpy.typing import NDArray

from mrcore.errors import BadInputError
from mrcore.grid import Affine, Grid, Shape3, to_world

logger = logging.getLogger(__name__)

# nibabel's header classes carry no types.
_Header = Any

AGREE_MM = 1e-3
SMALLEST_VOXEL_MM, LARGEST_VOXEL_MM = 0.05, 50.0
_MM_PER_UNIT = {"meter": 1e3, "micron": 1e-3}
# Deflate cannot shrink anything by more than this; a header that asks for more data is wrong.
_LARGEST_RATIO = 1032
_MAGIC = {b"n+1\0": "NIfTI-1", b"n+2\0": "NIfTI-2"}


@dataclass(frozen=True)
class Problem:
    """Something wrong with an image: `fatal` when it cannot be used, else a warning."""

    text: str
    fatal: bool = True


@dataclass(frozen=True, eq=False)
class ImageFile:
    """What an image file holds, as stored.

    Attributes:
        path: the file.
        format: NIfTI-1, NIfTI-2 or MGH.
        sha256: of the file's bytes.
        shape: as in the header, trailing axes included.
        stored_dtype: numpy name of the stored type.
        slope: stored number to intensity; 1 where the header has none.
        intercept: stored number to intensity; 0 where the header has none.
        units: of length, as the header says.
        sform_code: None for MGH.
        qform_code: None for MGH.
        disagreement_mm: largest distance between a corner placed by sform and by qform; None unless both are set.
        affine: voxel to RAS+ world in mm, as the header has it; None when it has none that can be read.
        data: float32 (X, Y, Z); None when it cannot be used.
        problems: everything found.
    """

    path: Path
    format: str
    sha256: str
    shape: tuple[int, ...]
    stored_dtype: str
    slope: float
    intercept: float
    units: str
    sform_code: int | None
    qform_code: int | None
    disagreement_mm: float | None
    affine: Affine | None
    data: NDArray[np.float32] | None
    problems: tuple[Problem, ...]

    @property
    def grid(self) -> Grid:
        """The voxel lattice in mm; raises BadInputError where the header has none that is valid."""
        if self.affine is None:
            raise BadInputError(f"{self.path}: the header has no position that can be read")
        return Grid(_spatial(self.shape), self.affine)


def read_image(path: Path) -> ImageFile:
    """Read an image and list its problems; only what cannot be read at all raises.

    Raises:
        BadInputError: no such file, not a NIfTI-1/2 or MGH image, a header or gzip stream that is damaged.
    """
    raw = _file_bytes(path)
    content = _decompressed(path, raw)
    kind, header = _header(path, content)
    shape = tuple(int(n) for n in header.get_data_shape())
    slope, intercept = header.get_slope_inter()
    affine, units, place = _place(header, shape)
    data, found = _data(path, header, content, shape)
    codes = (None, None) if kind == "MGH" else (int(header["sform_code"]), int(header["qform_code"]))
    return ImageFile(
        path=path,
        format=kind,
        sha256=hashlib.sha256(raw).hexdigest(),
        shape=shape,
        stored_dtype=_dtype_name(header.get_data_dtype()),
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
        units=units,
        sform_code=codes[0],
        qform_code=codes[1],
        disagreement_mm=_disagreement_mm(header, shape) if kind != "MGH" else None,
        affine=affine,
        data=data,
        problems=(*place, *found),
    )


def require_usable(image: ImageFile) -> NDArray[np.float32]:
    """Return the data of an image that has no fatal problem; warnings are logged.

    Raises:
        BadInputError: the first fatal problem, and how many more there are.
    """
    fatal = [problem.text for problem in image.problems if problem.fatal]
    if fatal or image.data is None:
        more = f" (and {len(fatal) - 1} more; see `mrkit info`)" if len(fatal) > 1 else ""
        raise BadInputError(f"{image.path}: {fatal[0]}{more}")
    for problem in image.problems:
        logger.warning("%s: %s", image.path, problem.text)
    return image.data


def corner_distance_mm(shape: tuple[int, ...], a: Affine, b: Affine) -> float:
    """Return the largest distance between the places that two affines give to a corner voxel of `shape`."""
    corners = np.array(np.meshgrid(*[(0, max(n - 1, 1)) for n in _spatial(shape)])).reshape(3, -1).T
    difference = corners @ (a - b)[:3, :3].T + (a - b)[:3, 3]
    return float(np.linalg.norm(difference, axis=1).max())


def _file_bytes(path: Path) -> bytes:
    if not path.exists():
        raise BadInputError(f"{path}: no such file")
    if path.is_dir():
        raise BadInputError(
            f"{path} is a folder; give one NIfTI or MGH image (a folder of DICOM files is converted with dcm2niix)"
        )
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror or error}") from None
    if not raw:
        raise BadInputError(f"{path} is empty (0 bytes); copy or convert the image again")
    return raw


def _decompressed(path: Path, raw: bytes) -> bytes:
    """Return the content of a gzip file, checked to its last byte; other files as they are."""
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, OSError, zlib.error) as error:
        raise BadInputError(f"{path}: the gzip stream is truncated or damaged ({error}); copy the file again") from None


def _header(path: Path, content: bytes) -> tuple[str, _Header]:
    """Return the format and nibabel's header, without nibabel's own checks (which log and repair)."""
    kinds: tuple[tuple[str, Any, bool], ...] = (
        ("NIfTI-1", nib.Nifti1Header, content[344:348] == b"n+1\0"),
        ("NIfTI-2", nib.Nifti2Header, content[4:8] == b"n+2\0"),
        ("MGH", nib.freesurfer.mghformat.MGHHeader, content[:4] == b"\0\0\0\1"),
    )
    for kind, header_type, fits in kinds:
        if fits:
            try:
                header = header_type.from_fileobj(io.BytesIO(content), check=False)
                header.get_data_dtype()
                header.get_data_shape()
            except Exception as error:  # nibabel raises many kinds for headers that make no sense
                raise BadInputError(f"{path}: the {kind} header is damaged ({error}); convert it again") from error
            return kind, header
    if content[128:132] == b"DICM":
        raise BadInputError(f"{path} is a DICOM file; convert the series to NIfTI with dcm2niix")
    if content[344:348] == b"ni1\0" or path.suffix in (".hdr", ".img"):
        raise BadInputError(f"{path} is half of a .hdr/.img pair; convert it to a single .nii.gz file")
    raise BadInputError(f"{path} is not a NIfTI-1, NIfTI-2 or MGH image (.nii, .nii.gz, .mgh, .mgz)")


def _place(header: _Header, shape: tuple[int, ...]) -> tuple[Affine | None, str, list[Problem]]:
    """Return the affine in mm, the unit of length and what is wrong with them."""
    problems: list[Problem] = []
    try:
        affine: Affine = np.array(header.get_best_affine() if hasattr(header, "get_best_affine") else None, np.float64)
    except Exception as error:  # qfac, negative voxel sizes or a quaternion that is none
        return None, "unknown", [Problem(f"the qform cannot be read ({error}); set a valid sform or qform")]
    units = "mm"
    if hasattr(header, "get_xyzt_units"):
        units, more = _units(header)
        problems += more
        affine[:3] *= _MM_PER_UNIT.get(units, 1.0)
        problems += _codes(header, shape)
    elif not int(header["goodRASFlag"]):
        problems.append(Problem("the MGH header has no valid position (goodRASFlag 0); orientation is a guess", False))
    problems += _grid_problems(shape, affine, units)
    return affine, units, problems


def _units(header: _Header) -> tuple[str, list[Problem]]:
    try:
        units = str(header.get_xyzt_units()[0])
    except KeyError:
        code = int(header["xyzt_units"]) % 8
        return "unknown", [Problem(f"xyzt_units has no length unit of code {code}; millimetres are assumed", False)]
    if units in _MM_PER_UNIT:
        return units, [Problem(f"the header gives lengths in {units}s; they were converted to mm", False)]
    return units, []


def _codes(header: _Header, shape: tuple[int, ...]) -> list[Problem]:
    """Return what is wrong between sform and qform."""
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    if sform_code <= 0 and qform_code <= 0:
        text = "neither sform nor qform is set: position and orientation (left and right) are unknown, a guess is used"
        return [Problem(text, False)]
    if sform_code <= 0 or qform_code <= 0:
        return []
    distance_mm = _disagreement_mm(header, shape)
    if distance_mm is None:
        return [Problem("the qform cannot be read; the sform is used", False)]
    if distance_mm > AGREE_MM and not _is_rounding(header, shape):
        text = f"sform and qform disagree by {distance_mm:.4g} mm; the sform is used, other programs may use the qform"
        return [Problem(text, False)]
    return []


def _disagreement_mm(header: _Header, shape: tuple[int, ...]) -> float | None:
    if int(header["sform_code"]) <= 0 or int(header["qform_code"]) <= 0:
        return None
    try:
        distance_mm = corner_distance_mm(shape, header.get_sform(), header.get_qform())
    except Exception:  # a qform that cannot be read is reported by _codes
        return None
    return distance_mm if np.isfinite(distance_mm) else None


def _is_rounding(header: _Header, shape: tuple[int, ...]) -> bool:
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
        grid = Grid(_spatial(shape), affine)
    except BadInputError as error:
        return [Problem(str(error))]
    low, high = min(grid.spacing_mm), max(grid.spacing_mm)
    if low < SMALLEST_VOXEL_MM or high > LARGEST_VOXEL_MM:
        sizes = " x ".join(f"{s:.4g}" for s in grid.spacing_mm)
        said = f"the header says {units}" if units != "unknown" else "the header gives no unit, mm was assumed"
        text = f"voxels of {sizes} mm are not those of an MRI scan ({said}); repair xyzt_units or the voxel size"
        return [Problem(text)]
    if not np.isfinite(to_world(grid, np.zeros(3))).all():
        return [Problem("the affine is not finite; repair the header")]
    return []


def _spatial(shape: tuple[int, ...]) -> Shape3:
    """Return the first three sizes, filled with ones."""
    x, y, z = (*shape, 1, 1, 1)[:3]
    return x, y, z


def _data(
    path: Path, header: _Header, content: bytes, shape: tuple[int, ...]
) -> tuple[NDArray[np.float32] | None, list[Problem]]:
    """Return the image as float32 (X, Y, Z), and what is wrong with it."""
    problems = _kind_problems(header, shape)
    dtype = header.get_data_dtype()
    n_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
    n_there = len(content) - int(header.get_data_offset())
    if n_there < n_bytes:
        text = f"the data are truncated: the header asks for {n_bytes} bytes and {max(n_there, 0)} are there"
        return None, [*problems, Problem(f"{text}; copy or convert the file again")]
    if problems or n_bytes == 0:
        return None, problems
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            stored = np.asanyarray(ArrayProxy(io.BytesIO(content), header))
            data = np.ascontiguousarray(stored.reshape(_spatial(shape)), dtype=np.float32)
    except Exception as error:  # nibabel raises many kinds for slopes and offsets that make no sense
        return None, [Problem(f"the data cannot be read ({error}); convert {path.name} again")]
    n_bad = int(np.count_nonzero(~np.isfinite(data)))
    if n_bad:
        text = f"{n_bad} of {data.size} voxels are NaN or infinite; replace them (for instance with 0) first"
        return data, [Problem(text)]
    if data.min() == data.max():
        return data, [Problem(f"the image is constant: every voxel is {data.flat[0]:.6g}; export the scan again")]
    return data, []


def _kind_problems(header: _Header, shape: tuple[int, ...]) -> list[Problem]:
    """Return why this is not one real 3-D image."""
    dtype = header.get_data_dtype()
    problems = []
    if dtype.fields is not None:
        problems.append(Problem("the image is RGB colour; give the scan itself, not a picture of it"))
    elif dtype.kind == "c":
        problems.append(Problem("the image is complex; give its magnitude (for instance the absolute value)"))
    elif dtype.kind not in "iuf":
        problems.append(Problem(f"data of type {dtype} are not numbers; convert the image to float32"))
    n_volumes = int(np.prod(shape[3:], dtype=object))
    if n_volumes != 1:
        sizes = " x ".join(str(n) for n in shape)
        text = f"a 3-D image is needed, this is {len(shape)}-D ({sizes}) with {n_volumes} volumes"
        problems.append(Problem(f"{text}; extract one volume first (for instance with fslroi or mrconvert)"))
    elif len(shape) < 3 or min(shape[:3]) == 1:
        sizes = " x ".join(str(n) for n in shape)
        problems.append(Problem(f"a 3-D image is needed, this is 2-D ({sizes}); give the whole stack of slices"))
    return problems


def _dtype_name(dtype: np.dtype[Any]) -> str:
    if dtype.fields is not None:
        return "RGB" + ("A" if len(dtype.fields) == 4 else "")
    return str(dtype.newbyteorder("=").name)
