"""Tissues and weighting of an image, given or found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mrcore.data.volume import TissueMap, Volume, require_same_grid
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.io.bids.weighting import named_weighting, weighting_by_times
from mrcore.io.sidecar import stem
from mrcore.notes import Caution
from mrcore.segmentation.tissues import Segmenter
from mrkit.anatomy.brain import find_brain
from mrkit.anatomy.segmenters import ORDERS, segmenter_named

Notes = tuple[str, ...]
"""What a reader of a result must know."""


def find_tissues(
    volume: Volume,
    tissues: TissueMap | None = None,
    mask: Tensor | None = None,
    segmenter: Segmenter | None = None,
) -> tuple[TissueMap, Notes]:
    """Return the given tissue maps, checked, or find them, and how that was done.

    Args:
        volume: magnitude image.
        tissues: maps on its grid, to be taken as they are, inside the `mask` where one is given.
        mask: brain (bool, X, Y, Z); found otherwise.
        segmenter: what finds the tissues; mrkit's for the image's weighting by default.

    Raises:
        BadInputError: maps without WM, or an image whose brain or tissues cannot be found.
        GridMismatchError: maps or mask on another grid.
    """
    if tissues is not None:
        return _given(volume, tissues, mask)
    notes: Notes = ()
    if mask is None:
        mask, notes = find_brain(volume)
    found = (segmenter or own_segmenter(volume))(volume, mask)
    message = found.message if found.method in found.message else f"{found.method}, {found.message}"
    return found.tissues, (*notes, f"tissues: {message}")


def own_segmenter(volume: Volume) -> Segmenter:
    """Return mrkit's segmenter for the weighting of `volume`."""
    return segmenter_named("mrkit", weighting(volume))


def weighting(volume: Volume) -> str:
    """Return the weighting (BIDS suffix) of `volume`, as `weighting_of` tells it."""
    return weighting_of(volume, str(volume.meta.get("SourceFile", "")))


def weighting_of(volume: Volume, file_name: str) -> str:
    """Return the weighting of an image: by the names in its sidecar, else its file's name, else its times, else T1w.

    mrkit's own sidecars state it; others say it in `ProtocolName`, `SeriesDescription` or the name of the sequence.
    BIDS names end in it (`sub-01_T2w`, and `sub-01_T2w_ulf` of a simulation).
    """
    return stated_weighting(volume.meta, file_name)[0] or "T1w"


def weighting_cautions(volume: Volume) -> tuple[Caution, ...]:
    """Return what is doubtful about the weighting that `weighting` tells."""
    return stated_weighting(volume.meta, str(volume.meta.get("SourceFile", "the image")))[1]


def stated_weighting(meta: Mapping[str, object], file_name: str) -> tuple[str | None, tuple[Caution, ...]]:
    """Return the weighting that sidecar and name of an image say, None where they do not, and what is doubtful."""
    block = meta.get("Acquisition")
    sequence = block.get("sequence") if isinstance(block, Mapping) else None
    stated = sequence.get("weighting") if isinstance(sequence, Mapping) else None
    if isinstance(stated, str) and stated in ORDERS:
        return stated, ()
    parts = stem(Path(file_name)).lower().replace("-", "_").split("_")
    named = [name for name in ORDERS if {name.lower(), name.lower().removesuffix("w")} & set(parts)]
    by_file = named[0] if len(named) == 1 else None
    by_name, key = named_weighting(meta)
    if by_name is not None:
        if by_file in (None, by_name):
            return by_name, ()
        text = f"{file_name} is taken as {by_name}, as {key} in its sidecar says ('{meta.get(key)}'), not as {by_file}"
        return by_name, (Caution(f"{text}; say --weighting if that is wrong", rank=0),)
    if by_file is not None:
        return by_file, ()
    by_times = weighting_by_times(meta)
    if by_times is not None:
        return by_times, (Caution(f"{file_name} is taken as {by_times}, by its echo and inversion time alone"),)
    return None, ()


def on_one_grid(tissues: TissueMap, volume: Volume) -> TissueMap:
    """Return tissue maps that `require_same_grid` has let pass on the very grid of `volume`: rounding is gone."""
    return tissues if tissues.grid.matches(volume.grid) else TissueMap(tissues.prob, tissues.names, volume.grid)


def _given(volume: Volume, tissues: TissueMap, mask: Tensor | None) -> tuple[TissueMap, Notes]:
    require_same_grid(volume.grid, tissues.grid, "the image and its tissue maps")
    if "WM" not in tissues.names:
        raise BadInputError(f"tissue maps need one named 'WM', got {', '.join(tissues.names)}")
    tissues = on_one_grid(tissues, volume)
    if mask is None:
        return tissues, ("tissues: given maps",)
    if mask.dtype != torch.bool or mask.shape != volume.data.shape:
        raise GridMismatchError(
            f"the mask must be boolean of shape {volume.grid.shape}, got {mask.dtype} {tuple(mask.shape)}"
        )
    return TissueMap(tissues.prob * mask, tissues.names, volume.grid), ("tissues: given maps, inside the given mask",)
