"""Images in and out: NIfTI-1/2 and MGH to Volume, Volume to NIfTI with a JSON sidecar.

Voxels are never reordered: data stay in file order (i, j, k) and the affine says where they are.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mrcore.data.grid import Grid
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.io.bids.checks import sidecar_problems
from mrcore.io.nifti_read import ImageFile, read_image, require_usable
from mrcore.io.nifti_write import SCANNER_CODE, space_code, write_nifti
from mrcore.io.sidecar import sidecar_and_cautions, sidecar_path
from mrcore.notes import Caution

logger = logging.getLogger(__name__)


def load_volume(path: str | Path) -> Volume:
    """Load a 3-D magnitude image as float32, on the grid of its header in mm.

    Slope and intercept of the header are applied. `meta` holds the sidecar's keys and `SourceFile` (its name),
    `SourceSHA256`, `SpaceCode` (NIfTI code of the world space) and `Warnings`, which are also logged.

    Raises:
        BadInputError: anything that makes the image unusable: missing, damaged, not 3-D, complex, colour, NaN or
            infinite values, constant, a singular affine, voxel sizes that no scan has.
    """
    image = read_image(Path(path))
    return Volume(torch.from_numpy(require_usable(image)), image.grid, _meta(image))


def save_volume(
    volume: Volume, path: str | Path, *, sidecar: Mapping[str, object] | None = None, force: bool = False
) -> None:
    """Write a volume as float32 NIfTI-1 in mm, with qform and sform, and its JSON sidecar; each atomically.

    The same volume gives the same bytes on every day and machine. The code of the world space is `SpaceCode` of
    `volume.meta`, else 1 (scanner). `sidecar` (None: empty) gets `GeneratedBy`; of `volume.meta` nothing enters by
    itself.

    Raises:
        BadInputError: the file or its sidecar exists and `force` is off; complex data; a name not ending in .nii
            or .nii.gz.
    """
    if volume.data.is_complex():
        raise BadInputError("complex images are not written; save the magnitude, or real and imaginary part each")
    data = volume.data.detach().cpu().numpy().astype(np.float32)
    write_nifti(data, volume.grid, Path(path), sidecar=sidecar or {}, force=force, space_code=space_code(volume.meta))


def save_labels(
    labels: Tensor,
    grid: Grid,
    path: Path,
    *,
    sidecar: Mapping[str, object],
    force: bool = False,
    space: int = SCANNER_CODE,
) -> None:
    """Write a label map (X, Y, Z) as uint8 NIfTI with its sidecar; `space` is the NIfTI code of the world space.

    Raises:
        BadInputError: labels that are not whole numbers from 0 to 255; an existing file.
        GridMismatchError: labels that are not on the grid.
    """
    values = labels.detach().cpu().numpy()
    if values.min() < 0 or values.max() > 255 or (values != np.round(values)).any():
        raise BadInputError(f"labels must be whole numbers from 0 to 255, got {values.min()} to {values.max()}")
    write_nifti(values.astype(np.uint8), grid, Path(path), sidecar=sidecar, force=force, space_code=space)


def sidecar_and_warnings(path: Path) -> tuple[dict[str, object], list[str]]:
    """Return the values of the sidecars of the image `path`, empty where there is none, and what is wrong with them."""
    try:
        values, cautions = sidecar_and_cautions(path)
    except BadInputError as error:
        return {}, [str(error)]
    return values, list(cautions)


def _meta(image: ImageFile) -> dict[str, object]:
    name = image.path.name
    warnings = [problem.noted(name) for problem in image.problems]
    meta, found = sidecar_and_warnings(image.path)
    doubts: list[str] = [Caution(text) for text in found]
    doubts += [problem.noted(name) for problem in sidecar_problems(meta, sidecar_path(image.path).name)]
    for text in doubts:
        logger.warning("%s", text)
    warnings += doubts
    space = image.sform_code or image.qform_code or SCANNER_CODE
    return {
        **meta,
        "SourceFile": image.path.name,
        "SourceSHA256": image.sha256,
        "SpaceCode": space,
        "Warnings": warnings,
    }
