"""Scans in folders."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mrcore.errors import BadInputError
from mrcore.io.file_content import IMAGE_SUFFIXES
from mrcore.io.sidecar import stem
from mrcore.io.volumes import load_volume
from mrkit.anatomy.finding import weighting_cautions, weighting_of
from mrkit.files.warn import warn_of

_NOT_SCANS = ("dseg", "probseg", "mask", "truth", "residualz")


_SUBJECT = re.compile(r"(?:^|_)(sub-[A-Za-z0-9]+(?:_ses-[A-Za-z0-9]+)?)(?:_|$)")


@dataclass(frozen=True)
class ScanFile:
    """An image file, its weighting (BIDS suffix), and the person it shows."""

    path: Path
    weighting: str
    subject: str


def find_scans(place: Path, what: str, weighting: str | None = None) -> tuple[ScanFile, ...]:
    """Return the scans in a folder and its subfolders, or the one file that `place` is.

    Files named `*_dseg`, `*_probseg`, `*_mask`, `*_truth` or `*_residualz` are no scans. `what` names the side in
    errors; `weighting` overrides what sidecars and names say.

    Raises:
        BadInputError: nothing there, no image in it, or one that cannot be read.
    """
    if place.is_file():
        paths = [place]
    elif place.is_dir():
        files = (p for p in sorted(place.rglob("*")) if p.is_file() and not p.name.startswith("."))
        paths = [p for p in files if p.name.lower().endswith(IMAGE_SUFFIXES)]
        paths = [p for p in paths if stem(p).rpartition("_")[2] not in _NOT_SCANS]
    else:
        raise BadInputError(f"{place}: no such file or folder; {what} needs images, or a folder of images")
    if not paths:
        raise BadInputError(
            f"{place} holds no image for {what}; expected .nii, .nii.gz, .mgz or .mgh files (label maps, masks and "
            "truths do not count)"
        )
    return tuple(ScanFile(p, weighting or _weighting_in(p), subject_of(p)) for p in paths)


def _weighting_in(path: Path) -> str:
    volume = load_volume(path)
    warn_of(weighting_cautions(volume))
    return weighting_of(volume, path.name)


def subject_of(path: Path) -> str:
    """Return whom an image shows: its `sub-` label (and session), else its name without weighting and `_ulf`.

    Files that say neither (`sub-01/ses-1/anat/T1w.nii.gz`, `p26/T1w_ulf.nii.gz`) are told by their folders.
    """
    name, folders = stem(path), path.absolute().parent
    found = _SUBJECT.search(name)
    if found:
        return found.group(1)
    # The innermost folders count; a label and its session are one after the other.
    above = list(_SUBJECT.finditer("_".join(folders.parts[1:])))
    if above:
        return above[-1].group(1)
    parts = [part for part in name.split("_") if part.lower() not in ("ulf", "t1w", "t2w", "flair", "t1", "t2")]
    return "_".join(parts) or folders.name or name
