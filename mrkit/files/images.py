"""Images in and out for a script: any format that mrkit reads, by a path or its text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.io.sidecar import stem
from mrcore.io.tissues import save_tissues
from mrcore.io.volumes import load_volume, save_volume
from mrcore.scans import as_scan
from mrkit.files.warn import warn_of


def load(path: str | Path) -> Volume:
    """Load a 3-D image (NIfTI-1/2 or MGH) as float32 on the grid of its header, in mm.

    The keys of a JSON sidecar beside it are in `meta`. Values are as stored; what they mean the verbs look at.

    Raises:
        BadInputError: anything that makes the image unusable: missing, damaged, not 3-D, complex, colour, NaN or
            infinite values, constant, a singular affine, voxel sizes that no scan has.
    """
    return load_volume(path)


def read_scan(path: str | Path) -> Volume:
    """Read an image that is to serve as a scan, as every verb takes it; what is doubtful is logged, and in its `meta`.

    Raises:
        BadInputError: an image that is unusable, or no scan.
    """
    scan, notes = as_scan(load_volume(path))
    warn_of(notes)
    return scan


def save(
    content: Volume | TissueMap, path: str | Path, *, sidecar: Mapping[str, object] | None = None, force: bool = False
) -> list[Path]:
    """Write an image, or tissue maps, with a JSON sidecar, and return the files.

    Args:
        content: an image becomes `path`; tissue maps become a label map and one probability map a tissue, named
            `STEM_dseg.nii.gz` and `STEM_label-WM_probseg.nii.gz` for a path `STEM.nii.gz`.
        path: .nii or .nii.gz; folders are made.
        sidecar: what the JSON beside each image holds beside its maker; nothing by default.
        force: replace what is there.

    Raises:
        BadInputError: a file exists and `force` is off; complex data; a name that does not end in .nii or .nii.gz.
    """
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise BadInputError(f"images are written as .nii or .nii.gz, got '{path.name}'")
    if isinstance(content, TissueMap):
        return save_tissues(content, path.parent, stem(path), sidecar=sidecar or {}, force=force)
    save_volume(content, path, sidecar=sidecar, force=force)
    return [path]
