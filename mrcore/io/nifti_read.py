"""Reading the bytes of NIfTI-1/2 and MGH images: every problem is found and said, none is repaired in silence."""

from __future__ import annotations

import io
import logging
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from numpy.typing import NDArray

from mrcore.data.grid import Affine, Grid
from mrcore.errors import BadInputError
from mrcore.intensities import fill_outside, range_problems
from mrcore.io.file_content import excess_cautions, name_cautions, read_content, what_it_is
from mrcore.io.nifti_place import Header, disagreement_mm, place, spatial
from mrcore.notes import Problem, Severity

logger = logging.getLogger(__name__)

_RAS_FLAG = slice(28, 30)  # goodRASFlag, 16 bit, after version, four sizes, type and degrees of freedom
_CORONAL = struct.pack(">h15f", 1, 1, 1, 1, -1, 0, 0, 0, 0, -1, 0, 1, 0, 0, 0, 0)
"""What FreeSurfer takes where the flag is not above 0: 1 mm, axes to L, I and A, centre at 0."""
_NO_PLACE = (
    "the MGH header has no valid position (goodRASFlag 0): as FreeSurfer does, coronal slices of 1 mm (LIA) are "
    "assumed; left and right are a guess"
)


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
        return Grid(spatial(self.shape), self.affine)


def read_image(path: Path, *, allow_slice: bool = False) -> ImageFile:
    """Read an image and list its problems; only what cannot be read at all raises.

    A single slice is a problem unless `allow_slice`.

    Raises:
        BadInputError: no such file, not a NIfTI-1/2 or MGH image, a header or gzip stream that is damaged.
    """
    file = read_content(path)
    content = file.content
    kind, header = _header(path, content)
    odd = [*file.cautions, *name_cautions(path, kind, compressed=file.compressed)]
    shape = tuple(int(n) for n in header.get_data_shape())
    slope, intercept = header.get_slope_inter()
    affine, units, misplaced = place(header, shape)
    if kind != "MGH" and header.get_data_dtype().itemsize:  # MGH has tags there
        end = int(header.get_data_offset()) + int(np.prod(shape, dtype=object)) * header.get_data_dtype().itemsize
        odd += excess_cautions(content, end)
    if kind == "MGH" and not _has_place(content):
        misplaced.append(Problem(_NO_PLACE, Severity.CAUTION))
    data, found = _data(path, header, content, shape, allow_slice=allow_slice)
    codes = (None, None) if kind == "MGH" else (int(header["sform_code"]), int(header["qform_code"]))
    return ImageFile(
        path=path,
        format=kind,
        sha256=file.sha256,
        shape=shape,
        stored_dtype=_dtype_name(header.get_data_dtype()),
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
        units=units,
        sform_code=codes[0],
        qform_code=codes[1],
        disagreement_mm=disagreement_mm(header, shape) if kind != "MGH" else None,
        affine=affine,
        data=data,
        problems=(*misplaced, *found, *(Problem(text, Severity.CAUTION) for text in odd)),
    )


def read_grid(path: Path) -> tuple[Grid, int]:
    """Return the voxel lattice of an image, of its first three axes, and the NIfTI code of its world space.

    Only the header is looked at: what the voxels hold and how many volumes there are does not matter. Warnings are
    logged.

    Raises:
        BadInputError: no such file, not a NIfTI-1/2 or MGH image, or a header without a valid position.
    """
    content = read_content(path).content
    kind, header = _header(path, content)
    shape = tuple(int(n) for n in header.get_data_shape())
    affine, _, problems = place(header, shape)
    if kind == "MGH" and not _has_place(content):
        problems.append(Problem(_NO_PLACE, Severity.CAUTION))
    for problem in problems:
        if problem.fatal:
            raise BadInputError(f"{path}: {problem.text}")
        logger.warning("%s: %s", path, problem.text)
    if affine is None:
        raise BadInputError(f"{path}: the header has no position that can be read")
    code = 0 if kind == "MGH" else int(header["sform_code"]) or int(header["qform_code"])
    return Grid(spatial(shape), affine), code


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
        if problem.severity is Severity.CAUTION:
            logger.warning("%s: %s", image.path.name, problem.text)
    return image.data


def _has_place(content: bytes) -> bool:
    """Whether an MGH header says that its position is valid; nibabel replaces the flag with 1."""
    return int.from_bytes(content[_RAS_FLAG], "big", signed=True) > 0


def _header(path: Path, content: bytes) -> tuple[str, Header]:
    """Return the format and nibabel's header, without nibabel's own checks (which log and repair)."""
    kinds: tuple[tuple[str, Any, bool], ...] = (
        ("NIfTI-1", nib.Nifti1Header, content[344:348] == b"n+1\0"),
        ("NIfTI-2", nib.Nifti2Header, content[4:8] == b"n+2\0"),
        ("MGH", nib.freesurfer.mghformat.MGHHeader, content[:4] == b"\0\0\0\1"),
    )
    for kind, header_type, fits in kinds:
        if fits:
            if kind == "MGH" and not _has_place(content):
                # nibabel takes negative flags for valid, and the columns of FreeSurfer's default axes for rows (LSP).
                content = content[: _RAS_FLAG.start] + _CORONAL + content[_RAS_FLAG.start + len(_CORONAL) :]
            try:
                header = header_type.from_fileobj(io.BytesIO(content), check=False)
                header.get_data_dtype()
                header.get_data_shape()
            except Exception as error:  # nibabel raises many kinds for headers that make no sense
                raise BadInputError(f"{path}: the {kind} header is damaged ({error}); convert it again") from error
            return kind, header
    raise BadInputError(f"{path} {what_it_is(path, content)}")


def _data(
    path: Path, header: Header, content: bytes, shape: tuple[int, ...], *, allow_slice: bool
) -> tuple[NDArray[np.float32] | None, list[Problem]]:
    """Return the image as float32 (X, Y, Z), and what is wrong with it."""
    problems = _kind_problems(header, shape, allow_slice=allow_slice)
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
            data = np.ascontiguousarray(stored.reshape(spatial(shape)), dtype=np.float32)
    except Exception as error:  # nibabel raises many kinds for slopes and offsets that make no sense
        return None, [Problem(f"the data cannot be read ({error}); convert {path.name} again")]
    data, problems = fill_outside(data)
    if any(problem.fatal for problem in problems):
        return data, problems
    return data, [*problems, *range_problems(data)]


def _kind_problems(header: Header, shape: tuple[int, ...], *, allow_slice: bool) -> list[Problem]:
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
    elif not allow_slice and is_slice(shape):
        problems.append(slice_problem(shape))
    return problems


def is_slice(shape: tuple[int, ...]) -> bool:
    """Whether an image has no third axis of more than one voxel."""
    return len(shape) < 3 or min(shape[:3]) == 1


def slice_problem(shape: tuple[int, ...]) -> Problem:
    """Return why a single slice cannot be used as a scan."""
    sizes = " x ".join(str(n) for n in shape)
    return Problem(f"a 3-D image is needed, this is 2-D ({sizes}); give the whole stack of slices")


def _dtype_name(dtype: np.dtype[Any]) -> str:
    if dtype.fields is not None:
        return "RGB" + ("A" if len(dtype.fields) == 4 else "")
    return str(dtype.newbyteorder("=").name)
