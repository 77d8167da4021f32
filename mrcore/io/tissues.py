"""Masks and tissue maps in and out of files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrcore.data.grid import Grid
from mrcore.data.volume import TISSUES, TissueMap, require_same_grid
from mrcore.errors import BadInputError
from mrcore.io.label_codes import tissue_of_codes
from mrcore.io.label_names import stated_meaning
from mrcore.io.nifti_read import read_image, require_usable
from mrcore.io.nifti_write import SCANNER_CODE, write_nifti

# Sums of given probabilities may miss 1 by this much (8-bit maps, interpolation) before they are refused.
_SUM_TOLERANCE = 0.05
_LARGEST_CODE = 20_000
_CERTAIN, _LEAST_CERTAIN = 0.95, 0.2


def load_mask(path: str | Path, grid: Grid) -> Tensor:
    """Load a mask (X, Y, Z) of bool on `grid`: a map of two values, or of probabilities (at least 0.5 is inside).

    Raises:
        BadInputError: more than two values outside 0 to 1 (an image, not a mask), an empty mask, or a file that
            cannot be used.
        GridMismatchError: a mask that is not on `grid`.
    """
    path = Path(path)
    image = read_image(Path(path), allow_slice=1 in grid.shape)
    data = require_usable(image)
    require_same_grid(image.grid, grid, f"the mask {path} and the image")
    low, high = float(data.min()), float(data.max())
    two_values = bool(np.isin(data, (low, high)).all())
    if two_values and low == 0:
        return torch.from_numpy(data > 0)
    if low < 0 or high > 1:
        raise BadInputError(
            f"{path} is not a mask: it holds values from {low:.6g} to {high:.6g}; give a map of 0 outside and 1 "
            "inside (an image that is 0 outside the brain becomes one with fslmaths -bin)"
        )
    # Maps of probability are certain almost everywhere; an image that was normalised to 1 is so almost nowhere.
    if float((data[data > 0] >= _CERTAIN).mean()) < _LEAST_CERTAIN:
        between = float(np.median(data[data > 0]))
        raise BadInputError(
            f"{path} is not a mask but an image: hardly any of its values from {low:.4g} to {high:.4g} (median "
            f"{between:.4g} where above 0) is 1; give a map of 0 outside and 1 inside"
        )
    return torch.from_numpy(data >= 0.5)


def load_tissues(paths: str | Path | Sequence[str | Path], labels: Mapping[int, str] | None = None) -> TissueMap:
    """Load tissues: one label map, or three probability maps in the order CSF, GM, WM.

    What the codes of a label map mean is what `labels` (code -> CSF, GM or WM; others are background) say, else what
    its sidecar (`LabelMap`) or a BIDS `dseg.tsv` states in names of tissues; without either they are those of FSL FAST
    (1 CSF, 2 GM, 3 WM) or FreeSurfer (aseg, aparc+aseg, wmparc, SynthSeg). BIDS' own codes are 1 GM, 2 WM, 3 CSF:
    `mrcore.segmentation.plausibility` tells from an image whether the right ones were taken. Probabilities are brought
    to sum to one where their sum is above 0.5, and to 0 elsewhere.

    Raises:
        BadInputError: another number of files, codes or values that are not known, a tissue without voxels.
        GridMismatchError: maps that do not share a grid.
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    if len(paths) == 1:
        return _from_labels(Path(paths[0]), labels)
    if labels is not None:
        raise BadInputError(f"labels say what the codes of one label map mean; got {len(paths)} files")
    if len(paths) == len(TISSUES):
        return _from_probabilities([Path(path) for path in paths])
    raise BadInputError(
        f"tissues are one label map, or three probability maps in the order CSF GM WM; got {len(paths)} files"
    )


def probability_paths(directory: Path, stem: str, names: Sequence[str] = TISSUES) -> list[Path]:
    """Return the names of the files that `save_tissues` writes: the label map first, then a map per tissue."""
    maps = [directory / f"{stem}_label-{name}_probseg.nii.gz" for name in names]
    return [directory / f"{stem}_dseg.nii.gz", *maps]


def save_tissues(
    tissues: TissueMap,
    directory: str | Path,
    stem: str,
    *,
    sidecar: Mapping[str, object] | None = None,
    force: bool = False,
    space: int = SCANNER_CODE,
) -> list[Path]:
    """Write a label map (1, 2, ... in the order of `tissues.names`, 0 outside) and a probability map per tissue.

    Returns:
        The files written, in the order of `probability_paths`. The sidecar of the label map has `LabelMap`.

    Raises:
        BadInputError: a file exists and `force` is off.
    """
    label_path, *map_paths = probability_paths(Path(directory), stem, tissues.names)
    sidecar = sidecar or {}
    prob = tissues.prob.detach().cpu().numpy().astype(np.float32)
    labels = np.where(prob.sum(0) > 0.5, prob.argmax(0) + 1, 0).astype(np.uint8)
    label_sidecar = {**sidecar, "LabelMap": {name: code for code, name in enumerate(tissues.names, start=1)}}
    write_nifti(labels, tissues.grid, label_path, sidecar=label_sidecar, force=force, space_code=space)
    for path, name, values in zip(map_paths, tissues.names, prob, strict=True):
        write_nifti(
            values, tissues.grid, path, sidecar={**sidecar, "LabelMap": {name: 1}}, force=force, space_code=space
        )
    return [label_path, *map_paths]


def _from_labels(path: Path, labels: Mapping[int, str] | None) -> TissueMap:
    image = read_image(path)
    data = require_usable(image)
    # A file that scales its numbers holds whole ones to half a step.
    whole = np.rint(data)
    if image.slope != 1 and np.abs(data - whole).max() <= min(0.5 * abs(image.slope), 0.25):
        data = whole
    if (data != whole).any():
        raise BadInputError(
            f"{path} is not a label map: it holds values between whole numbers; give labels, or three probability "
            "maps in the order CSF GM WM"
        )
    if data.min() < 0 or data.max() > _LARGEST_CODE:
        outside = np.unique(data[(data < 0) | (data > _LARGEST_CODE)])
        tissue_of_codes([int(code) for code in outside], str(path))
    codes = data.astype(np.int32)
    present = [int(code) for code in np.flatnonzero(np.bincount(codes.ravel()))]
    if labels is None:
        table = tissue_of_codes(present, str(path), stated_meaning(path))
    else:
        table = {**dict.fromkeys(present), **labels}
    number_of = np.full(_LARGEST_CODE + 1, -1, dtype=np.int8)
    for code in present:
        number_of[code] = -1 if table[code] is None else TISSUES.index(str(table[code]))
    tissue = number_of[codes]
    prob = np.stack([tissue == number for number in range(len(TISSUES))]).astype(np.float32)
    return _complete(prob, image.grid, str(path))


def _from_probabilities(paths: Sequence[Path]) -> TissueMap:
    images = [read_image(path) for path in paths]
    prob = np.stack([require_usable(image) for image in images[:1]])
    for image in images[1:]:
        data = require_usable(image)
        require_same_grid(images[0].grid, image.grid, f"the tissue maps {paths[0]} and {image.path}")
        prob = np.concatenate([prob, data[None]])
    total = prob.sum(0)
    if prob.min() < -_SUM_TOLERANCE or prob.max() > 1 + _SUM_TOLERANCE or total.max() > 1 + _SUM_TOLERANCE:
        raise BadInputError(
            f"tissue probabilities must be from 0 to 1 and sum to at most 1; {', '.join(map(str, paths))} hold "
            f"{prob.min():.4g} to {prob.max():.4g} with sums up to {total.max():.4g}; divide them by their maximum"
        )
    prob = prob.clip(0, None)
    total = prob.sum(0)
    inside = total > 0.5
    prob = np.where(inside, prob / np.where(inside, total, 1), 0).astype(np.float32)
    return _complete(prob, images[0].grid, ", ".join(map(str, paths)))


def _complete(prob: NDArray[np.float32], grid: Grid, what: str) -> TissueMap:
    """Return the tissue map, once every tissue is known to have some voxels."""
    empty = [name for name, values in zip(TISSUES, prob, strict=True) if not (values > 0.5).any()]
    if empty:
        raise BadInputError(f"{what}: no voxel is {' or '.join(empty)}; all of {', '.join(TISSUES)} are needed")
    return TissueMap(torch.from_numpy(prob), TISSUES, grid)
