"""One image with the mask and the tissues that were given for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mrcore.data.volume import TissueMap, Volume, require_same_grid
from mrcore.io.tissues import load_mask, load_tissues
from mrcore.segmentation.brainmask import is_skull_stripped, require_reliable
from mrcore.segmentation.deepbet import deepbet_brain_mask
from mrcore.segmentation.plausibility import require_order
from mrcore.segmentation.tissues import Segmenter
from mrkit.anatomy.finding import on_one_grid, weighting_cautions, weighting_of
from mrkit.anatomy.segmenters import ORDERS, segmenter_named
from mrkit.files.images import read_scan
from mrkit.files.job import Job
from mrkit.files.warn import warn_of


@dataclass(frozen=True, eq=False)
class Subject:
    """One image, the mask and the tissues that were given for it, its weighting, and what segments it."""

    volume: Volume
    mask: Tensor | None
    tissues: TissueMap | None
    weighting: str
    segmenter: Segmenter


def read_mask(path: Path | None, volume: Volume, masker: str) -> Tensor | None:
    """Return the brain mask of `volume` from its file, or by deepbet where that is the masker of a head; else None.

    Raises:
        BadInputError: a file that cannot be used, or a mask that deepbet is not sure of.
        GridMismatchError: a mask on another grid.
        MissingExtraError: deepbet is not installed.
    """
    if path is not None:
        return load_mask(path, volume.grid)
    if masker == "deepbet" and not is_skull_stripped(volume):
        return require_reliable(deepbet_brain_mask(volume)).mask
    return None


def read_subject(job: Job) -> Subject:
    """Read image, mask and tissues, and check that they share a grid.

    Raises:
        BadInputError: a file that cannot be used.
        GridMismatchError: mask or tissues on another grid than the image.
        MissingExtraError: the segmenter or the masker is not installed.
    """
    volume = read_scan(job.image)
    tissues = load_tissues(job.tissues, job.labels) if job.tissues else None
    # Tissues that are given are their own mask.
    mask = read_mask(job.mask, volume, job.masker if tissues is None else "given")
    if tissues is not None:
        require_same_grid(volume.grid, tissues.grid, f"the image {job.image} and its tissue maps")
        tissues = on_one_grid(tissues, volume)
    if job.weighting is None:
        warn_of(weighting_cautions(volume))
    weighting = job.weighting or weighting_of(volume, job.image.name)
    if tissues is not None and job.labels is None:
        require_order(volume, tissues, ORDERS[weighting], "the tissues that were given")
    return Subject(volume, mask, tissues, weighting, segmenter_named(job.segmenter, weighting))
