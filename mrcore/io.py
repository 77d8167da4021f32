"""Images in and out: NIfTI-1/2 and MGH to Volume, Volume to NIfTI with a JSON sidecar.

Voxels are never reordered: data stay in file order (i, j, k) and the affine says where they are.
"""

from __future__ import annotations

import gzip
import io
import logging
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrcore.atomic import atomic_write, refuse_existing
from mrcore.errors import BadInputError
from mrcore.grid import Grid
from mrcore.nifti import AGREE_MM, ImageFile, corner_distance_mm, read_image
from mrcore.sidecar import read_sidecar, sidecar_path, write_sidecar
from mrcore.volume import Volume

logger = logging.getLogger(__name__)

_SCANNER_CODE = 1


def load_volume(path: Path) -> Volume:
    """Load a 3-D magnitude image as float32, on the grid of its header in mm.

    Slope and intercept of the header are applied. `meta` holds the sidecar's keys and `SourceFile` (its name),
    `SourceSHA256`, `SpaceCode` (NIfTI code of the world space) and `Warnings`.

    Raises:
        BadInputError: anything that makes the image unusable: missing, damaged, not 3-D, complex, colour, NaN or
            infinite values, constant, a singular affine, voxel sizes that no scan has.
    """
    image = read_image(Path(path))
    return Volume(torch.from_numpy(require_usable(image)), image.grid, _meta(image))


def require_usable(image: ImageFile, *, may_be_constant: bool = False) -> NDArray[np.float32]:
    """Return the data of an image that has no fatal problem; warnings are logged.

    Raises:
        BadInputError: the first fatal problem, and how many more there are.
    """
    fatal = [problem.text for problem in image.problems if problem.fatal]
    if image.data is not None and not may_be_constant and not fatal and is_constant(image.data):
        fatal.append(f"the image is constant (every voxel is {image.data.flat[0]:.6g}); there is nothing to work on")
    if fatal or image.data is None:
        more = f" (and {len(fatal) - 1} more; see `mrkit info`)" if len(fatal) > 1 else ""
        raise BadInputError(f"{image.path}: {fatal[0]}{more}")
    for problem in image.problems:
        logger.warning("%s: %s", image.path, problem.text)
    return image.data


def is_constant(data: NDArray[np.float32]) -> bool:
    """Whether every voxel has the same value."""
    return bool(data.min() == data.max())


def save_volume(volume: Volume, path: Path, *, sidecar: Mapping[str, object], force: bool = False) -> None:
    """Write a volume as float32 NIfTI-1 in mm, with qform and sform, and its JSON sidecar; both atomically.

    The same volume gives the same bytes on every day and machine. The code of the world space is `SpaceCode` of
    `volume.meta`, 1 (scanner) where there is none. `sidecar` gets `GeneratedBy`. Of an affine with shears only the
    sform can be written: the qform is then marked unknown and a warning is logged.

    Raises:
        BadInputError: the file or its sidecar exists and `force` is off; complex data; a name not ending in .nii
            or .nii.gz.
    """
    if volume.data.is_complex():
        raise BadInputError("complex images are not written; save the magnitude, or real and imaginary part each")
    data = volume.data.detach().cpu().numpy().astype(np.float32)
    write_nifti(data, volume.grid, path, sidecar=sidecar, force=force, space_code=space_code(volume.meta))


def save_labels(
    labels: Tensor, grid: Grid, path: Path, *, sidecar: Mapping[str, object], force: bool = False, space: int = 1
) -> None:
    """Write a label map (X, Y, Z) as uint8 NIfTI with its sidecar; `space` is the NIfTI code of the world space.

    Raises:
        BadInputError: labels that are not whole numbers from 0 to 255 or not on the grid; an existing file.
    """
    values = labels.detach().cpu().numpy()
    if values.min() < 0 or values.max() > 255 or (values != np.round(values)).any():
        raise BadInputError(f"labels must be whole numbers from 0 to 255, got {values.min()} to {values.max()}")
    write_nifti(values.astype(np.uint8), grid, path, sidecar=sidecar, force=force, space_code=space)


def write_nifti(
    data: NDArray[np.float32] | NDArray[np.uint8],
    grid: Grid,
    path: Path,
    *,
    sidecar: Mapping[str, object],
    force: bool,
    space_code: int,
) -> None:
    """Write `data` (X, Y, Z) in its own type, and the sidecar; see `save_volume`."""
    if not path.name.endswith((".nii", ".nii.gz")):
        raise BadInputError(f"images are written as .nii or .nii.gz, got the name {path.name}")
    if data.shape != grid.shape:
        raise BadInputError(f"data of shape {data.shape} do not fit the grid of {grid.shape}")
    refuse_existing([path, sidecar_path(path)], force=force)
    image = nib.Nifti1Image(data, grid.affine, dtype=data.dtype)
    header = image.header
    header.set_data_dtype(data.dtype)
    header.set_xyzt_units("mm")
    header.set_sform(grid.affine, code=space_code)
    header.set_qform(grid.affine, code=space_code, strip_shears=True)
    if _is_sheared(grid):
        header.set_qform(None, code=0)
        logger.warning("%s: the affine has shears, which only the sform holds; programs that need a qform fail", path)
    content = image.to_bytes()
    with atomic_write(path, force=force) as temporary:
        temporary.write_bytes(_gzipped(content) if path.name.endswith(".gz") else content)
    write_sidecar(path, sidecar, force=force)


def space_code(meta: Mapping[str, object]) -> int:
    """Return the NIfTI code of the world space that `load_volume` found: 1 scanner, 2 aligned, 3 Talairach, 4 MNI."""
    code = meta.get("SpaceCode", _SCANNER_CODE)
    return code if isinstance(code, int) and 1 <= code <= 5 else _SCANNER_CODE


def _meta(image: ImageFile) -> dict[str, object]:
    try:
        meta, warnings = read_sidecar(image.path), [problem.text for problem in image.problems]
    except BadInputError as error:
        meta, warnings = {}, [*(problem.text for problem in image.problems), str(error)]
        logger.warning("%s", error)
    code = image.sform_code or image.qform_code or _SCANNER_CODE
    return {
        **meta,
        "SourceFile": image.path.name,
        "SourceSHA256": image.sha256,
        "SpaceCode": code,
        "Warnings": warnings,
    }


def _is_sheared(grid: Grid) -> bool:
    """Whether axes are so far from right angles that a corner moves by more than the agreed 1e-3 mm."""
    left, _, right = np.linalg.svd(grid.affine[:3, :3] / np.asarray(grid.spacing_mm))
    square = grid.affine.copy()
    square[:3, :3] = (left @ right) * np.asarray(grid.spacing_mm)
    return corner_distance_mm(grid.shape, grid.affine, square) > AGREE_MM


def _gzipped(content: bytes) -> bytes:
    """Compress without name and time in the gzip header, so that equal content gives equal bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0, compresslevel=6) as file:
        file.write(content)
    return buffer.getvalue()
