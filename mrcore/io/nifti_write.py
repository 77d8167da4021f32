"""Writing NIfTI-1: both transforms set, mm, whole files only, the same bytes for the same image."""

from __future__ import annotations

import gzip
import io
import logging
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from mrcore.data.grid import Grid
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.io.atomic import atomic_write, refuse_existing
from mrcore.io.nifti_place import AGREE_MM
from mrcore.io.sidecar import sidecar_path, write_sidecar

logger = logging.getLogger(__name__)

SCANNER_CODE = 1
_LARGEST_SIZE = 32767


def write_nifti(
    data: NDArray[np.float32] | NDArray[np.uint8],
    grid: Grid,
    path: Path,
    *,
    sidecar: Mapping[str, object],
    force: bool,
    space_code: int = SCANNER_CODE,
) -> None:
    """Write `data` (X, Y, Z) in its own type as NIfTI-1, then its sidecar; each atomically.

    qform and sform both get the affine and `space_code` (1 scanner, 2 aligned, 3 Talairach, 4 MNI). An affine with
    shears fits the sform only: the qform is then marked unknown and a warning is logged.

    Raises:
        BadInputError: a name not ending in .nii or .nii.gz, an axis too long for NIfTI-1, an existing file.
        GridMismatchError: data whose shape is not that of the grid.
    """
    if not path.name.endswith((".nii", ".nii.gz")):
        raise BadInputError(f"images are written as .nii or .nii.gz, got the name {path.name}")
    if data.shape != grid.shape:
        raise GridMismatchError(f"data of shape {data.shape} do not fit the grid of {grid.shape}")
    if max(grid.shape) > _LARGEST_SIZE:
        raise BadInputError(f"NIfTI-1 holds at most {_LARGEST_SIZE} voxels per axis, got {grid.shape}")
    refuse_existing([path, sidecar_path(path)], force=force)
    image = nib.Nifti1Image(data, grid.affine, dtype=data.dtype)
    image.header.set_xyzt_units("mm")
    image.header.set_sform(grid.affine, code=space_code)
    image.header.set_qform(grid.affine, code=space_code, strip_shears=True)
    if grid.shear_mm > AGREE_MM:
        image.header.set_qform(None, code=0)
        logger.warning("%s: the affine has shears, which only the sform holds; programs that need a qform fail", path)
    content = image.to_bytes()
    with atomic_write(path, force=force) as temporary:
        temporary.write_bytes(_gzipped(content) if path.name.endswith(".gz") else content)
    write_sidecar(path, sidecar, force=force)


def space_code(meta: Mapping[str, object]) -> int:
    """Return the code of the world space that loading put into `meta`; 1 (scanner) where there is none."""
    code = meta.get("SpaceCode", SCANNER_CODE)
    return code if isinstance(code, int) and 1 <= code <= 5 else SCANNER_CODE


def _gzipped(content: bytes) -> bytes:
    """Compress without name and time in the gzip header, so that equal content gives equal bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0, compresslevel=6) as file:
        file.write(content)
    return buffer.getvalue()
