"""Scans in folders: which there are, of which contrast, and which of them can be used."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mrcore.errors import BadInputError, MrkitError
from mrcore.io.file_content import IMAGE_SUFFIXES
from mrcore.io.sidecar import stem
from mrcore.io.volumes import load_volume, sidecar_and_warnings
from mrcore.notes import Caution
from mrcore.scans import as_scan
from mrkit.anatomy.finding import stated_weighting
from mrkit.files.warn import warn_of

_log = logging.getLogger(__name__)

_NOT_SCANS = ("dseg", "probseg", "mask", "truth", "residualz")
_OTHER_CONTRASTS = frozenset((
    "dwi", "sbref", "bold", "cbv", "epi", "fieldmap", "magnitude", "magnitude1", "magnitude2", "phasediff",
    "phase", "phase1", "phase2", "asl", "m0scan", "angio", "defacemask", "pdw", "pdt2", "inplanet1",
    "inplanet2", "t2starw", "unit1", "t1map", "t2map", "t2starmap", "r1map", "r2map", "r2starmap", "pdmap",
    "chimap", "mtsat", "mtrmap", "mp2rage", "megre", "mese", "vfa", "irt1", "mpm", "mts",
))  # fmt: skip
"""Suffixes of BIDS for images that are neither T1w nor T2w nor FLAIR, in small letters."""

_SUBJECT = re.compile(r"(?:^|_)(sub-[A-Za-z0-9]+(?:_ses-[A-Za-z0-9]+)?)(?:_|$)")


@dataclass(frozen=True)
class ScanFile:
    """An image file, its weighting (BIDS suffix), and the person it shows."""

    path: Path
    weighting: str
    subject: str


def find_scans(place: Path, what: str, weighting: str | None = None) -> tuple[ScanFile, ...]:
    """Return the scans in a folder and its subfolders, or the one file that `place` is; no image is opened.

    Files named `*_dseg`, `*_probseg`, `*_mask`, `*_truth` or `*_residualz` are no scans, nor are those that BIDS names
    for other contrasts (`*_bold`); what is in hidden folders is not looked at. With `weighting` only images are taken
    that are of it or do not say (by sidecar or name) what they are; a single file is taken to be of it. `what` names
    the side in errors. Links to nothing are scans as well: `usable_scans` says what is wrong with them.

    Raises:
        BadInputError: nothing there, no image in it, or none of the asked weighting.
    """
    if place.is_dir():
        paths = _images_in(place)
    elif place.is_file() or place.is_symlink():
        own, cautions = (weighting, ()) if weighting else _stated(place)
        warn_of(cautions)
        return (_scan(place, own),)
    else:
        raise BadInputError(f"{place}: no such file or folder; {what} needs images, or a folder of images")
    if not paths:
        raise BadInputError(
            f"{place} holds no image for {what}; expected .nii, .nii.gz, .mgz or .mgh files (label maps, masks and "
            "truths do not count)"
        )
    stated = {path: _stated(path) for path in paths}
    taken = {path: own for path, (own, _) in stated.items() if weighting is None or own in (None, weighting)}
    if not taken:
        others = ", ".join(sorted({own for own, _ in stated.values() if own}))
        raise BadInputError(
            f"{place} holds no {weighting} image for {what}: by name or sidecar all {len(paths)} are {others}; "
            "give another --weighting or folder"
        )
    if weighting is None:
        warn_of(caution for path in taken for caution in stated[path][1])
    return tuple(_scan(path, own or weighting) for path, own in taken.items())


def usable_scans(scans: Iterable[ScanFile], what: str) -> tuple[tuple[ScanFile, ...], tuple[str, ...]]:
    """Return the scans that can be read, and why each of the others was left out, which is logged as a warning.

    Raises:
        BadInputError: there are scans, and none can be read.
    """
    good, left_out = [], []
    for scan in scans:
        try:
            as_scan(load_volume(scan.path))
        except MrkitError as error:
            left_out.append(left_out_text(scan.path.name, error))
            reason = error
        else:
            good.append(scan)
    if left_out and not good:
        more = f" ({len(left_out)} images, none can be used)" if len(left_out) > 1 else ""
        raise BadInputError(f"{what} has no image that can be used{more}: {reason}")
    for text in left_out:
        _log.warning(text)
    return tuple(good), tuple(left_out)


def left_out_text(name: str, error: MrkitError) -> str:
    """Return what is said of an image that cannot be used where others can."""
    return f"{name} was left out: {error}"


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


def _images_in(folder: Path) -> list[Path]:
    """Return the files in a folder that are named as images, links to nothing included, and may be scans."""
    found = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or not path.name.lower().endswith(IMAGE_SUFFIXES):
            continue
        suffix = stem(path).rpartition("_")[2]
        if suffix in _NOT_SCANS or suffix.lower() in _OTHER_CONTRASTS:
            continue
        if path.is_file() or (path.is_symlink() and not path.exists()):
            found.append(path)
    return found


def _scan(path: Path, weighting: str | None) -> ScanFile:
    return ScanFile(path, weighting or "T1w", subject_of(path))


def _stated(path: Path) -> tuple[str | None, tuple[Caution, ...]]:
    return stated_weighting(sidecar_and_warnings(path)[0], path.name)
