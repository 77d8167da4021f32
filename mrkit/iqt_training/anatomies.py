"""Heads for a training: read, brain found, scaled, and kept, so that a resumed run starts at once."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from mrcore.data.grid import Grid
from mrcore.errors import BadInputError, MrkitError
from mrcore.io.label_codes import tissue_of_codes
from mrcore.io.sidecar import file_sha256
from mrcore.io.volumes import load_volume
from mrcore.scans import as_scan
from mrkit.anatomy.brain import find_brain
from mrkit.files.kept import Kept, KeptPart
from mrkit.iqt_training.config import Group, TrainingConfig
from mrkit.progress import stages
from ulfsim.cubes.anatomy import CubeAnatomy, image_anatomy, label_anatomy

logger = logging.getLogger(__name__)

_VOXEL_MM, _ANISOTROPY = (0.75, 1.45), 1.4
_MARGIN_VOXELS = 24


@dataclass(frozen=True, eq=False)
class Anatomies:
    """What is trained on and what is held out, the sha256 of each file, and why files were left out."""

    train: tuple[CubeAnatomy, ...]
    held_out: tuple[CubeAnatomy, ...]
    sha256: dict[str, str]
    left_out: dict[str, str]


def read_anatomies(config: TrainingConfig, folder: Path) -> Anatomies:
    """Read all heads of a training, keeping each in `folder`; files that cannot be used are listed, not fatal.

    Raises:
        BadInputError: no file can be used.
    """
    train: list[CubeAnatomy] = []
    held: list[CubeAnatomy] = []
    hashes, left_out = {}, {}
    files = [
        (path, group, is_labels)
        for groups, is_labels in ((config.images, False), (config.labels, True))
        for group in groups
        for path in group.paths
    ]
    with stages(len(files), "head") as begin:
        for path, group, is_labels in files:
            begin(path.name)
            try:
                digest = file_sha256(path)
                anatomy = _anatomy(path, group, digest, folder, is_labels=is_labels)
            except MrkitError as error:
                left_out[path.name] = str(error)
                logger.warning("left out: %s", error)
                continue
            hashes[path.name] = digest
            (held if path.name in config.held_out else train).append(anatomy)
    if not train:
        raise BadInputError(
            f"none of the {len(files)} files can be trained on; the first: {next(iter(left_out.values()))}"
        )
    return Anatomies(tuple(train), tuple(held), hashes, left_out)


def _anatomy(path: Path, group: Group, digest: str, folder: Path, *, is_labels: bool) -> CubeAnatomy:
    kept = Kept(folder, f"cubes 1 {digest} {is_labels}")
    if is_labels:
        part = kept.part(path.name, lambda: _labels(path))
        table = {int(code): tissue for code, tissue in json.loads(part.facts["tissues"]).items()}
        return label_anatomy(path.name, part.tensors["labels"], table, group.weight)
    part = kept.part(path.name, lambda: _image(path))
    return image_anatomy(path.name, part.tensors["image"], part.tensors["brain"], group.weight)


def _image(path: Path) -> KeptPart:
    volume, _ = as_scan(load_volume(path))
    _require_fine(path, volume.grid)
    brain, how = find_brain(volume)
    image, brain = _canonical(volume.data, volume.grid), _canonical(brain, volume.grid)
    box = _box(brain)
    # Half precision ends at 65504, short of what some scanners write.
    return KeptPart(
        {"image": (image[box] / image.max()).half().contiguous(), "brain": brain[box].contiguous()},
        {"brain": "; ".join(how)},
    )


def _labels(path: Path) -> KeptPart:
    volume = load_volume(path)
    _require_fine(path, volume.grid)
    labels = _canonical(volume.data.float().round().to(torch.int32), volume.grid)
    table = tissue_of_codes((int(code) for code in torch.unique(labels)), path.name)
    brain = torch.isin(labels, torch.tensor([code for code, tissue in table.items() if tissue is not None]))
    if not bool(brain.any()):
        raise BadInputError(f"{path.name} has no label of the brain")
    present = {int(code): table[int(code)] for code in torch.unique(labels)}
    return KeptPart({"labels": labels[_box(brain)].contiguous()}, {"tissues": json.dumps({0: None, **present})})


def _require_fine(path: Path, grid: Grid) -> None:
    spacing = grid.spacing_mm
    if not (
        _VOXEL_MM[0] <= min(spacing) and max(spacing) <= _VOXEL_MM[1] and max(spacing) <= _ANISOTROPY * min(spacing)
    ):
        sizes = " x ".join(f"{s:.2f}" for s in spacing)
        raise BadInputError(
            f"{path.name}: training heads need voxels of about 1 mm ({_VOXEL_MM[0]} to {_VOXEL_MM[1]}), got {sizes} mm"
        )


def _canonical(data: Tensor, grid: Grid) -> Tensor:
    """Return the data with axes along right, anterior and superior."""
    orientation = nib.orientations.io_orientation(grid.affine)
    return torch.from_numpy(np.ascontiguousarray(nib.orientations.apply_orientation(data.numpy(), orientation)))


def _box(brain: Tensor) -> tuple[slice, ...]:
    at = brain.nonzero()
    low, high = at.amin(0) - _MARGIN_VOXELS, at.amax(0) + 1 + _MARGIN_VOXELS
    return tuple(slice(max(0, int(a)), int(b)) for a, b in zip(low, high, strict=True))
