"""Tissues of a fit: what their logits are held to, renewed as the images sharpen (EM), and where the brain ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from scipy import ndimage
from torch import Tensor

from inr.losses import dice_cross_entropy
from mrcore.data.volume import TissueMap
from mrcore.errors import BadInputError
from mrcore.segmentation.foreground import largest_part

Resegment = Callable[[Tensor], Tensor]
"""From an image (X, Y, Z) on the lattice to tissue probabilities (T, X, Y, Z)."""

ANCHOR_KEPT = 0.25
"""What a refresh leaves of the initial segmentation's weight in the target."""

START_SHARE = 0.5
"""Share of the start in what a refresh segments, where little noise is in it."""

QUIET_SD = 0.07
"""Noise of a voxel, relative to WM, up to which the start has its full share: 5 mm slices at WM SNR 50, 1 mm voxels."""


@dataclass(frozen=True, eq=False)
class TissueTerm:
    """Dice + cross-entropy of tissue logits against a target that follows the images.

    `anchor`, the initial segmentation, and `target` are probabilities (T, n) at the n voxels of `brain` (X, Y, Z,
    bool) in the order of its flattened true entries; `start` (X, Y, Z) is the image that the fit began from, of which
    `start_share` goes into what is segmented. Each of the `n_refreshes` so far has segmented an image anew by
    `segmented`; without it the anchor stays the target.
    """

    anchor: Tensor
    target: Tensor
    brain: Tensor
    start: Tensor
    segmented: Resegment | None = None
    start_share: float = START_SHARE
    n_refreshes: int = 0

    def loss(self, logits: Tensor) -> Tensor:
        """Return the loss of logits (T, n): mean cross-entropy plus mean soft Dice loss."""
        return dice_cross_entropy(logits, self.target)

    def refreshed(self, images: Tensor) -> TissueTerm:
        """Return the term whose target has learnt from `images` (C, X, Y, Z), of which the first is segmented.

        What is segmented is its mean with the start: total variation loses thin grey matter, Tikhonov keeps noise,
        and their errors are largely each other's (mean tissue Dice of one simulated 64 mT scan .823 against .813 and
        .811). Each refresh leaves `ANCHOR_KEPT` of the anchor's weight in the target.
        """
        if self.segmented is None:
            return self
        mixed = self.start_share * self.start + (1 - self.start_share) * images[0]
        found = _at(self.segmented(mixed), self.brain)
        weight = ANCHOR_KEPT ** (self.n_refreshes + 1)
        target = weight * self.anchor + (1 - weight) * found
        return replace(self, target=target, n_refreshes=self.n_refreshes + 1)


def share_of_start(noise_sd: float) -> float:
    """Return what share of the start goes into what is segmented, given the noise of a voxel (see `noise_on_lattice`).

    It is `START_SHARE`, and falls as 1 / `noise_sd` beyond `QUIET_SD`: a noisy start costs more than its grey matter is
    worth (mean tissue Dice of one scan at WM SNR 10, 5 mm slices: .733, .729 and .717 at shares of 0, .3 and .5).
    """
    return START_SHARE * min(1.0, QUIET_SD / noise_sd)


def tissue_term(
    tissues: TissueMap,
    brain: Tensor,
    start: Tensor,
    segmented: Resegment | None = None,
    start_share: float = START_SHARE,
) -> TissueTerm:
    """Return the term that begins with `tissues` inside `brain` (X, Y, Z, bool); `start` is the fit's first image.

    Raises:
        BadInputError: a brain or start of another shape than the tissue maps.
    """
    shape = tissues.grid.shape
    if brain.dtype != torch.bool or tuple(brain.shape) != shape or tuple(start.shape) != shape:
        raise BadInputError(
            f"tissues on {shape} need a boolean brain and a start of that shape, got {brain.dtype} "
            f"{tuple(brain.shape)} and {tuple(start.shape)}"
        )
    anchor = _at(tissues.prob, brain)
    return TissueTerm(anchor, anchor, brain, start, segmented, start_share)


def support(image: Tensor, tissues: TissueMap) -> Tensor:
    """Return where a brain in zeros ends (X, Y, Z, bool): `image` above half the mean of its darkest tissue.

    For skull-stripped scans only. The mask that a scan of thick slices gives is wider than the brain by the blur of
    its slices (7 % of the volume at 5 mm); `image` is a Tikhonov solution, in which that blur is undone, and the
    result lies inside the mask of `tissues`. Holes are filled.

    Raises:
        BadInputError: an image that is not on the grid of its tissues, or one without any tissue.
    """
    if tuple(image.shape) != tissues.grid.shape or not bool(tissues.mask.any()):
        raise BadInputError(f"the brain's border needs an image on the grid of its tissues {tissues.grid.shape}")
    means = (tissues.prob * image).flatten(1).sum(1) / tissues.prob.flatten(1).sum(1).clamp_min(1e-6)
    inside = ((image > 0.5 * means.min()) & tissues.mask).cpu().numpy()
    return torch.from_numpy(ndimage.binary_fill_holes(largest_part(inside))).to(image.device) & tissues.mask


def _at(prob: Tensor, brain: Tensor) -> Tensor:
    """Return tissue maps (T, X, Y, Z) at the brain's voxels (T, n), summing to one."""
    at = prob[:, brain].clamp_min(1e-4)
    return at / at.sum(0)
