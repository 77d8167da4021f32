"""Synthetic sources: another weighting (T2w, FLAIR) from a T1w scan's tissue maps and texture. Approximate.

Gains on a T1w scan's signal keep everything that is dark dark, which is wrong where the tissues' order changes. Here
each voxel is what its tissues would show: volume fractions times one level per tissue. The texture comes in through
the fractions: a voxel of grey matter that is a little brighter than its tissue's mean counts as partly white matter,
so it becomes darker in T2w. What the T1w scan does not show (most lesions, iron, vessels) cannot appear, and where it
is dark for another reason than CSF (bone, dura, flowing blood), the tissue maps decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from ulfsim.source.source import Source, source_of

APPROXIMATE = (
    "the order of the tissues is not that of the source: this contrast is synthesised from tissue maps and is "
    "approximate; lesions and vessels that the source does not show are missing, and what no tissue covers (scalp, "
    "fat, muscle) keeps the source's contrast"
)
_SAME = 0.02  # tissues whose signals differ by less, as a fraction of the larger, have no order


def synthetic_source(volume: Volume, tissues: TissueMap, texture: float = 1.0) -> Source:
    """Return a source whose parts are volume fraction x mean signal of each tissue, for gains that reorder tissues.

    The fractions are (1 - texture) p + texture f: p the tissue maps, f what they become when they have to explain the
    voxel's intensity (`signal_shares`). Where a voxel and the mean of the 3 x 3 x 3 around it are darker than the
    darkest tissue, there is less than a full voxel of anything, and all parts shrink in that ratio. The source's bias
    field, which is not that of another scanner, and its noise beyond the brightest and darkest tissue are left out.

    The parts are not negative, and linear calibration holds for them as for any source. Outside the tissues the image
    stays as it is, which suits fat (bright in T1w and in fast spin echo T2w) better than muscle.

    Raises:
        GridMismatchError: tissues on another grid.
        BadInputError: a complex image, a tissue that is nowhere, or a texture outside 0 to 1.
    """
    return _synthetic(source_of(volume, tissues), texture)


def source_for(
    volume: Volume, tissues: TissueMap, target: Mapping[str, float], texture: float = 1.0
) -> tuple[Source, tuple[str, ...]]:
    """Return the source for a scan with the signals `target` (tissue to SNR), and notes: synthetic where it must be."""
    return suited(source_of(volume, tissues), target, texture)


def suited(source: Source, target: Mapping[str, float], texture: float = 1.0) -> tuple[Source, tuple[str, ...]]:
    """Return `source`, or the synthetic one of it where the signals `target` reorder its tissues; and notes."""
    if source.synthetic or not needs_synthesis(dict(zip(source.names, source.levels, strict=True)), target):
        return source, ()
    return _synthetic(source, texture), (APPROXIMATE,)


def needs_synthesis(source_signals: Mapping[str, float], target: Mapping[str, float]) -> bool:
    """Return whether any two tissues (tissue to signal, of the source and of the target) change their order.

    Raises:
        BadInputError: signals of different tissues.
    """
    if sorted(source_signals) != sorted(target):
        raise BadInputError(f"source and target need the same tissues, got {list(source_signals)} and {list(target)}")
    names = list(target)
    return any(
        _order(source_signals[a], source_signals[b]) * _order(target[a], target[b]) < 0
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    )


def _synthetic(source: Source, texture: float) -> Source:
    """Return the synthetic source of what `source_of` made."""
    if not 0 <= texture <= 1:
        raise BadInputError(f"texture must lie between 0 (tissue maps alone) and 1, got {texture}")
    basis, prob = source.basis, source.inner_tissues.prob.to(source.basis.dtype)
    levels = torch.tensor(source.levels, dtype=basis.dtype, device=basis.device)
    levels = levels.clamp_min(1e-3 * float(levels.max()))
    darkest = int(levels.argmin())
    presence = _presence(source, float(levels[darkest]))
    whole = prob.sum(0) * presence
    # A part of the source is intensity x share; the fractions behind the shares are share / level, scaled to sum 1.
    amount = torch.einsum("t,txyz->xyz", 1 / levels, basis)
    empty = amount <= 0
    fitted = basis * (whole / torch.where(empty, torch.ones_like(amount), amount))
    fitted[darkest] = torch.where(empty, levels[darkest] * whole, fitted[darkest])
    if texture < 1:
        fitted = texture * fitted + (1 - texture) * levels[:, None, None, None] * presence * prob
    return replace(source, basis=fitted, synthetic=True)


def _order(a: float, b: float) -> int:
    return 0 if abs(a - b) <= _SAME * max(abs(a), abs(b)) else 1 if a > b else -1


def _presence(source: Source, darkest: float) -> Tensor:
    """Return how much of each voxel (x, y, z) is anything at all, from 0 to 1."""
    image = source.volume.data[source.window].clamp_min(0)
    # Single voxels of CSF, dark as it is, are mostly noise; voxels at the brain's edge have empty neighbours.
    around = torch.nn.functional.avg_pool3d(image[None, None], 3, stride=1, padding=1, count_include_pad=False)[0, 0]
    return (torch.maximum(image, around) / darkest).clamp(0, 1)
