"""A super-resolved image in another contrast: one curve for all voxels, through the levels of its tissues.

Gains per tissue, applied by tissue probabilities, are not a function of the intensity: where two tissues share a voxel
they make dips and rims that no anatomy has. A curve that rises everywhere cannot. It holds no information that the
image does not: it is for eyes and tools that expect another contrast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from mrcore.errors import BadInputError
from mrcore.volume import TissueMap, Volume, require_same_grid
from ulfsim.contrast import BlochSpread
from ulfsim.gauge import contrast_warnings
from ulfsim.measure import tissue_cores

OWN = "the scan's own contrast"


@dataclass(frozen=True, eq=False)
class MappedContrast:
    """An image in another contrast.

    `own` and `target` are the levels of the tissues before and after; `gauge` says where the target came from;
    `wm_gm` is the Michelson contrast before and after. `warnings` say where contrast was made up.
    """

    image: Volume
    own: Mapping[str, float]
    target: Mapping[str, float]
    gauge: str
    wm_gm: tuple[float, float]
    warnings: tuple[str, ...]

    @property
    def message(self) -> str:
        """What a report says of the contrast."""
        if self.gauge == OWN:
            return f"contrast: {OWN}, WM-GM {self.wm_gm[0]:.3f} (Michelson); nothing was added"
        before, after = self.wm_gm
        return f"contrast: mapped by one rising curve to {self.gauge}; WM-GM (Michelson) {before:.3f} -> {after:.3f}"


def own_contrast(image: Volume, tissues: TissueMap) -> MappedContrast:
    """Return the image as it is, with its levels.

    Raises:
        GridMismatchError: tissues on another grid.
    """
    own = tissue_levels(image, tissues)
    contrast = _michelson(own)
    return MappedContrast(image, own, own, OWN, (contrast, contrast), ())


def tissue_levels(image: Volume, tissues: TissueMap) -> Mapping[str, float]:
    """Return the median of the image in the core of each tissue.

    Raises:
        GridMismatchError: tissues on another grid.
        BadInputError: a tissue without any voxel.
    """
    require_same_grid(image.grid, tissues.grid, "the image and its tissue maps")
    cores, _ = tissue_cores(tissues)
    levels = {name: float(image.data[core].median()) for name, core in zip(tissues.names, cores, strict=True)}
    return MappingProxyType(levels)


def levels_without_gains(own: Mapping[str, float], gains: Mapping[str, float]) -> Mapping[str, float]:
    """Return the levels (tissue -> intensity) that calibrated `gains` turned into those of the scan.

    `gains` are those of `ulfsim.calibrate` or of `ulfsim.published` for this scan and a high-field reference; each
    has its gauge.

    Raises:
        BadInputError: gains that do not name the tissues, or are not positive.
    """
    if sorted(gains) != sorted(own) or min(gains.values()) <= 0:
        raise BadInputError(
            f"a positive gain for each of {list(own)} is needed, got {dict(gains)}; a gain of 0 cannot be undone"
        )
    return MappingProxyType({name: level / gains[name] for name, level in own.items()})


def levels_of_bloch(own: Mapping[str, float], predicted: BlochSpread) -> Mapping[str, float]:
    """Return the levels that the Bloch equations predict, with WM as it is (see `ulfsim.contrast.bloch_spread`).

    Raises:
        BadInputError: a prediction for other tissues.
    """
    if sorted(predicted.names) != sorted(own):
        raise BadInputError(f"a prediction for {list(own)} is needed, got {list(predicted.names)}")
    return MappingProxyType(
        {name: value * own["WM"] for name, value in zip(predicted.names, predicted.relative, strict=True)}
    )


def map_contrast(
    image: Volume,
    tissues: TissueMap,
    target: Mapping[str, float],
    gauge: str,
    *,
    reference: Mapping[str, float] | None = None,
    predicted: BlochSpread | None = None,
) -> MappedContrast:
    """Map `image` by one curve that takes the level of each tissue to `target` (tissue -> intensity).

    Zero stays zero; between the levels the curve is the monotone cubic of Fritsch & Carlson (SIAM Journal on
    Numerical Analysis 1980;17:238), above the brightest a proportion. `gauge` says where the target came from. The
    result warns where its contrast exceeds that of `reference` (levels of a high-field image) or leaves what the Bloch
    equations predict (`predicted`, of the target's sequence and field).

    Raises:
        GridMismatchError: tissues on another grid.
        BadInputError: a target that does not name the tissues, or in which they have another order of brightness.
    """
    own = tissue_levels(image, tissues)
    if sorted(target) != sorted(own) or min(target.values()) <= 0:
        raise BadInputError(f"a positive level for each of {list(own)} is needed, got {dict(target)}")
    order = sorted(own, key=lambda name: own[name])
    wanted = [target[name] for name in order]
    if any(a >= b for a, b in pairwise(wanted)) or own[order[0]] <= 0:
        raise BadInputError(
            f"from dark to bright the image has {', '.join(order)}, the target "
            f"{', '.join(sorted(target, key=lambda n: target[n]))}: no curve can map one to the other; "
            "keep the scan's own contrast"
        )
    mapped = Volume(_curve(image.data, [own[name] for name in order], wanted), image.grid, image.meta)
    after = tissue_levels(mapped, tissues)
    warnings = []
    if reference is not None:
        names = tuple(reference)
        levels = [np.array([values[name] for name in names]) for values in (after, reference)]
        warnings += contrast_warnings(names, *levels)
    contrast = _michelson(after)
    if predicted is not None:
        value, low, high = predicted.wm_gm
        if abs(contrast) > max(abs(low), abs(high)) or contrast * value < 0:
            warnings.append(
                f"WM-GM contrast (Michelson) {contrast:.3f} is not what the Bloch equations predict: {value:.3f} "
                f"({low:.3f} to {high:.3f})"
            )
    return MappedContrast(mapped, own, after, gauge, (_michelson(own), contrast), tuple(warnings))


def _curve(values: Tensor, own: list[float], wanted: list[float]) -> Tensor:
    """Map values by the curve through (0, 0) and the points (own, wanted); proportional above the last and below 0."""
    inner = PchipInterpolator([0.0, *own], [0.0, *wanted])
    within = values.clamp(0, own[-1])
    mapped = torch.from_numpy(np.asarray(inner(within.numpy()))).to(values.dtype)
    return mapped + (wanted[-1] / own[-1]) * (values - within)


def _michelson(levels: Mapping[str, float]) -> float:
    total = levels["WM"] + levels["GM"]
    return (levels["WM"] - levels["GM"]) / total if total else 0.0
