"""Render a fitted field from files to files."""

from __future__ import annotations

from pathlib import Path

from inr.field_files import load_field
from inr.rendering import render
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.forward import covering_grid
from mrcore.io.nifti_read import read_grid
from mrkit.files.outputs import ImageOutput, Output, OutputNames, TissueOutput, check_outputs, write_results
from mrkit.files.provenance import Record


def render_files(
    field: Path, out: Path, *, voxel_mm: float | None = None, like: Path | None = None, force: bool = False
) -> list[Path]:
    """Write the field's image and tissues at `voxel_mm` or on the grid of `like`; return what was written.

    Raises:
        BadInputError: neither grid or both, a file that cannot be used, or results that are there already.
    """
    if (voxel_mm is None) == (like is None):
        raise BadInputError("say either a voxel size or an image whose grid is meant, not both or neither")
    names = OutputNames(out, field.name.removesuffix(field.suffix))
    image = out / f"{names.stem}.nii.gz"
    inputs = {"field": field, **({"grid": like} if like else {})}
    check_outputs([image, *names.tissues("")], [], inputs.values(), force=force)
    fitted = load_field(field)
    own = fitted.field.grid
    grid, space = read_grid(like) if like is not None else (covering_grid(own, voxel_mm or max(own.spacing_mm)), 0)
    volume, tissues = render(fitted, grid)
    space_of = Volume(volume.data, grid, {"SpaceCode": space})
    outputs: list[Output] = [ImageOutput(image, volume, space_of), TissueOutput(names, "", tissues, space_of)]
    return write_results(outputs, Record(inputs, 0, {"VoxelMm": list(grid.spacing_mm)}).sidecar(), force=force)
