"""Tissues expected at each voxel: those of the ICBM-152 template, laid over the subject and blurred."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from scipy import ndimage
from torch import Tensor

from mrcore.data.grid import Grid
from mrcore.data.volume import TissueMap, Volume
from mrcore.segmentation.brainmask import SMALLEST_SIMILARITY
from mrcore.segmentation.tissues import HmrfSettings, Segmentation, Segmenter, check_segmentable, segment
from mrcore.spatial.registration import RegisterSettings, register
from mrcore.spatial.resampling import resample
from mrkit.anatomy.template import load_template

BLUR_MM = 6.0
"""FWHM of the blur: how far an affine motion leaves the borders of two brains apart."""
PRIOR_WEIGHT = 0.3
"""Where one brain's tissue volumes came out least biased from a T1w scan; Dice hardly depends on it up to 0.5."""


@dataclass(frozen=True, eq=False)
class AtlasPrior:
    """Tissue probabilities on the subject's grid, from the template alone, and how well it lies over the subject.

    `similarity` is that of `mrcore.spatial.registration` (0 to 1); where `reliable` is False the maps say nothing.
    """

    tissues: TissueMap
    similarity: float
    reliable: bool
    message: str


def atlas_prior(volume: Volume, mask: Tensor, blur_mm: float = BLUR_MM) -> AtlasPrior:
    """Lay the template's tissues over the brain in `mask` (bool, X, Y, Z) of `volume`, whatever its contrast.

    The motion is affine. The template's fluid is that of a segmentation of its image: its own maps have next to none.
    Inside the mask the maps sum to one; where the template ends, each tissue is as likely as in the whole brain.

    Raises:
        BadInputError: a complex or constant image, or a mask with too few voxels.
        GridMismatchError: a mask of another shape.
        MissingExtraError: nilearn, which carries the template, is not installed.
    """
    check_segmentable(volume, mask)
    template = load_template()
    maps = segment(template.t1, template.mask).tissues
    # The scan's surroundings tell nothing of the template, which has no skull.
    found = register(template.t1, Volume(volume.data * mask, volume.grid), RegisterSettings(), fixed_mask=_grown(mask))
    moved = Grid(template.t1.grid.shape, found.motion @ template.t1.grid.affine)
    blurred = TissueMap(torch.stack([_blurred(p, moved, blur_mm) for p in maps.prob]).clamp(0, 1), maps.names, moved)
    reliable = found.similarity >= SMALLEST_SIMILARITY
    message = f"tissue prior of the ICBM-152 template {'used' if reliable else 'does not fit'}: {found.message}" + (
        "" if reliable else f" (at least {SMALLEST_SIMILARITY} expected)"
    )
    return AtlasPrior(_onto(blurred, volume.grid, mask), found.similarity, reliable, message)


def atlas_segmenter(
    prior: AtlasPrior, settings: HmrfSettings | None = None, prior_weight: float = PRIOR_WEIGHT
) -> Segmenter:
    """Return mrkit's HMRF-EM with a prior, which is taken to the grid of each image; without one that does not fit."""

    def run(volume: Volume, mask: Tensor) -> Segmentation:
        maps = _onto(prior.tissues, volume.grid, mask) if prior.reliable else None
        found = segment(volume, mask, settings, maps, prior_weight)
        return replace(found, message=f"{found.message}; {prior.message}")

    return run


def _onto(tissues: TissueMap, grid: Grid, mask: Tensor) -> TissueMap:
    """Interpolate tissue maps linearly onto `grid`; inside the mask they sum to one, as in the whole brain at least."""
    prob = torch.stack([resample(Volume(p, tissues.grid), grid, order=1).data for p in tissues.prob]).clamp_min(0)
    share = tissues.prob.flatten(1).sum(1) / tissues.prob.sum()
    # Added to all: it decides where there is nothing else.
    prob = prob + 0.02 * share[:, None, None, None]
    return TissueMap(torch.where(mask, prob / prob.sum(0), 0.0), tissues.names, grid)


def _grown(mask: Tensor) -> Tensor:
    return torch.from_numpy(ndimage.binary_dilation(mask.numpy(), iterations=3))


def _blurred(prob: Tensor, grid: Grid, fwhm_mm: float) -> Tensor:
    sigma = [fwhm_mm / 2.3548 / spacing for spacing in grid.spacing_mm]
    return torch.from_numpy(ndimage.gaussian_filter(prob.numpy(), sigma, mode="constant"))
