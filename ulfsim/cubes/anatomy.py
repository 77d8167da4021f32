"""Heads to cut cubes from: real images, or label maps that are painted anew for every cube."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.data.brief import Brief
from mrcore.errors import BadInputError
from mrcore.random import seeded

LEVEL_QUANTILE = 0.9
"""The quantile of intensities in the brain that counts as 1: about white matter in T1w, any weighting has one."""

_N_CENTRES, _N_SAMPLED = 20_000, 4_000


@dataclass(frozen=True, eq=False, repr=False)
class CubeAnatomy(Brief):
    """One head of about 1 mm voxels, whose axes run along right, anterior, superior in any order.

    Attributes:
        name: for the record.
        values: (X, Y, Z); of an image its intensities, of a label map the index of each label in `tissues`.
        brain: (X, Y, Z), bool.
        tissues: of a label map the tissue of each index, None for what is none; None for an image.
        has_head: whether there is anything outside the brain.
        centres: (n, 3), voxels of the brain.
        sampled: (m,), values of voxels in the brain that stand for all of them.
        weight: relative share of cubes.
    """

    name: str
    values: Tensor
    brain: Tensor
    tissues: tuple[str | None, ...] | None
    has_head: bool
    centres: Tensor
    sampled: Tensor
    weight: float = 1.0


def image_anatomy(name: str, image: Tensor, brain: Tensor, weight: float = 1.0) -> CubeAnatomy:
    """Return the anatomy of a magnitude image (X, Y, Z), scaled to 1 at `LEVEL_QUANTILE` of its brain.

    Raises:
        BadInputError: a brain mask that is empty or without signal.
    """
    inside = image[brain]
    level = float(inside.float().quantile(LEVEL_QUANTILE)) if inside.numel() > 0 else 0.0
    if level <= 0:
        raise BadInputError(f"{name}: no signal inside the brain mask; is it the mask of this image?")
    # Half precision keeps 3 digits and half the memory; vessels and fat far above the brain would rule the noise.
    values = (image.float() / level).clamp(0, 3).half()
    outside = float((values[~brain] > 0.1).float().mean()) if bool((~brain).any()) else 0.0
    return _anatomy(name, values, brain, None, outside > 0.02, weight)


def label_anatomy(name: str, labels: Tensor, tissue_of: Mapping[int, str | None], weight: float = 1.0) -> CubeAnatomy:
    """Return the anatomy of a label map (X, Y, Z); `tissue_of` tells the tissue of each code, None for no brain.

    Raises:
        BadInputError: no label of a tissue, or a code without one.
    """
    codes, index = torch.unique(labels, return_inverse=True)
    if unknown := sorted({int(c) for c in codes} - set(tissue_of)):
        raise BadInputError(f"{name} holds label codes of unknown meaning: {unknown[:6]}")
    tissues = tuple(tissue_of[int(code)] for code in codes)
    is_brain = torch.tensor([tissue is not None for tissue in tissues])
    if int(codes[0]) != 0:
        raise BadInputError(f"{name}: a label map has a background of 0, the lowest code here is {int(codes[0])}")
    brain = is_brain[index]
    has_head = bool((~brain & (index > 0)).float().mean() > 0.02)
    return _anatomy(name, index.to(torch.int16), brain, tissues, has_head, weight)


def _anatomy(
    name: str, values: Tensor, brain: Tensor, tissues: tuple[str | None, ...] | None, has_head: bool, weight: float
) -> CubeAnatomy:
    if values.ndim != 3 or values.shape != brain.shape:
        raise BadInputError(f"{name}: image and brain mask need one 3-D shape, got {values.shape} and {brain.shape}")
    inside = brain.nonzero()
    if not len(inside):
        raise BadInputError(f"{name}: the brain mask is empty")
    generator = seeded(0, f"ulfsim.cubes:{name}")
    centres = inside[torch.randint(len(inside), (_N_CENTRES,), generator=generator)].to(torch.int16)
    at = inside[torch.randint(len(inside), (_N_SAMPLED,), generator=generator)]
    return CubeAnatomy(name, values, brain, tissues, has_head, centres, values[tuple(at.T)], weight)
