"""Contrasts at random: intensities of labels, curves through the intensities of an image, texture, receive bias."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor

from mrcore.random import below, chance, normal, uniform

# Means of WM, GM and CSF relative to the brightest, as T1w, T2w and FLAIR images at 0.05 to 3 T show them, and the sd
# of each: wide, since every site has its own.
_WEIGHTINGS = (
    ((1.0, 0.66, 0.26), (0.02, 0.08, 0.08), 0.45),
    ((0.42, 0.6, 1.0), (0.06, 0.07, 0.1), 0.22),
    ((0.72, 0.95, 0.2), (0.07, 0.06, 0.09), 0.18),
)
_TISSUE = {"WM": 0, "GM": 1, "CSF": 2}
_KNOT_STEP = 0.25


def label_levels(tissues: Sequence[str | None], generator: torch.Generator) -> Tensor:
    """Draw one intensity per label: as a weighting shows its tissue, or, for some, wholly at random."""
    n = len(tissues)
    pick, chosen = uniform(0.0, 1.0, generator), None
    for means, spreads, share in _WEIGHTINGS:
        if pick < share:
            chosen = (means, spreads)
            break
        pick -= share
    levels = torch.rand(n, generator=generator) * 1.1
    if chosen is not None:
        of_tissue = [normal(mean, spread, generator) for mean, spread in zip(*chosen, strict=True)]
        own = torch.randn(n, generator=generator) * 0.035
        for i, tissue in enumerate(tissues):
            if tissue is not None:
                # Deep grey matter lies between cortex and white matter.
                mix = uniform(0.0, 0.6, generator) if tissue == "GM" and chance(0.4, generator) else 0.0
                levels[i] = (1 - mix) * of_tissue[_TISSUE[tissue]] + mix * of_tissue[0] + own[i]
    for i, tissue in enumerate(tissues):
        if tissue is None and chance(0.3, generator):
            levels[i] = 0.02
    levels[0] = 0.0
    return levels.clamp_min(0.0)


def paint(index: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
    """Return the image (X, Y, Z) of labels with these intensities: smooth texture, and edges of partial volume."""
    strength = (torch.randn(len(levels), generator=generator) * 0.02 + 0.03).abs() * (levels > 0)
    grain = smoothed(torch.randn(index.shape, generator=generator), uniform(0.7, 2.0, generator))
    at = index.long()
    painted = levels[at] + strength[at] * (grain / grain.std().clamp_min(1e-6))
    return smoothed(painted.clamp_min(0), uniform(0.35, 0.75, generator))


class Curve:
    """A curve of intensity: mostly a power, else straight pieces between random knots, rising, falling or neither."""

    def __init__(self, generator: torch.Generator) -> None:
        self.power, self.knots = math.exp(normal(0.0, 0.2, generator)), None
        kind = uniform(0.0, 1.0, generator)
        if kind < 0.7:
            return
        n = 14
        if kind < 0.88:  # T2w-like: what is dark in T1w is bright
            fall = uniform(0.4, 0.9, generator)
            knots = torch.linspace(1.0, 1.0 - fall * (n - 1) * _KNOT_STEP, n).clamp_min(0.05)
            knots = knots + 0.05 * torch.randn(n, generator=generator)
        else:  # FLAIR-like: brightest in the middle
            top = below(3, generator) + 1
            knots = 1.0 - (torch.arange(n) - top).abs() * _KNOT_STEP * uniform(0.6, 1.3, generator)
            knots = knots + 0.08 * torch.randn(n, generator=generator)
        self.knots = knots.clamp_min(0.02)

    def __call__(self, values: Tensor) -> Tensor:
        """Return the curve at `values`, any shape, not negative."""
        if self.knots is None:
            return values.pow(self.power)
        at = (values / _KNOT_STEP).clamp(0, len(self.knots) - 1.001)
        low = at.long()
        return torch.lerp(self.knots[low], self.knots[low + 1], at - low)


def receive_bias(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw a smooth receive profile (X, Y, Z) around 1."""
    coarse = 1 + uniform(0.0, 0.15, generator) * torch.randn((1, 1, 3, 3, 3), generator=generator)
    smooth = functional.interpolate(coarse, list(shape), mode="trilinear", align_corners=True)[0, 0]
    return smooth.clamp(0.5, 1.6)


def smoothed(image: Tensor, sigma_voxels: float) -> Tensor:
    """Return the image (X, Y, Z) filtered by a Gaussian cut at 3 voxels."""
    at = torch.arange(-3.0, 4.0)
    kernel = torch.exp(-at.square() / (2 * sigma_voxels**2))
    kernel /= kernel.sum()
    out = image[None, None]
    for axis in range(3):
        size = [7 if a == axis else 1 for a in range(3)]
        out = functional.conv3d(out, kernel.reshape(1, 1, *size), padding=tuple(n // 2 for n in size))
    return out[0, 0]
