"""Whether tissue maps that were given can be those of an image."""

from __future__ import annotations

import itertools

import torch

from mrcore.data.volume import TISSUES, TissueMap, Volume, require_same_grid
from mrcore.errors import BadInputError

STATED_BESIDE = "state it in the sidecar's LabelMap, or in a dseg.tsv"
"""Where no option says what codes mean."""
_CORE = 0.95
_LEAST_GAP = 0.03
"""Differences of medians below this share of the largest are no order: at low field GM and WM may be alike."""


def require_order(
    volume: Volume, tissues: TissueMap, order: tuple[str, str, str], what: str, remedy: str = "say it with --labels"
) -> None:
    """Refuse tissues whose intensities are not in this order, from dark to bright, by more than noise would explain.

    Label maps differ in what their codes mean (FAST: 1 CSF, 2 GM, 3 WM; BIDS: 1 GM, 2 WM, 3 CSF), and probability maps
    in their order; `what` names those that were given, `remedy` how to say what codes mean.

    Raises:
        GridMismatchError: tissues that are not on the grid of the image.
        BadInputError: an order that contradicts the image; the message says which meaning would fit it.
    """
    require_same_grid(volume.grid, tissues.grid, f"the image and {what}")
    medians = {name: _median(volume, tissues, name) for name in TISSUES}
    gap = _LEAST_GAP * max(abs(value) for value in medians.values())
    if not _contradicts([medians[name] for name in order], gap):
        return
    shown = ", ".join(f"{name} {medians[name]:.4g}" for name in order)
    text = (
        f"{what} do not fit the image: its medians are {shown}, but this contrast has {' < '.join(order)}; the codes "
        f"or the order of the maps mean something else ({remedy}), or the weighting is another"
    )
    fitting = [
        named
        for named in itertools.permutations(TISSUES)
        if not _contradicts([medians[TISSUES[named.index(name)]] for name in order], gap)
    ]
    if len(fitting) == 1:
        meant = ", ".join(f"{given} is {named}" for given, named in zip(TISSUES, fitting[0], strict=True))
        text += f"; what would fit: what was taken as {meant}"
    raise BadInputError(text)


def _contradicts(rising: list[float], gap: float) -> bool:
    """Return whether values that should rise fall somewhere by more than `gap`."""
    return any(b < a - gap for a, b in itertools.combinations(rising, 2))


def _median(volume: Volume, tissues: TissueMap, name: str) -> float:
    """Return the median intensity where a tissue is most probable: its cores, or as near to them as it comes."""
    prob = tissues.of(name)
    core = prob >= min(_CORE, float(prob.max()))
    return float(torch.median(volume.data[core].float()))
