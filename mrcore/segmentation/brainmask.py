"""Where the brain is: recognise skull-stripped images, find the mask of a brain with or without its skull."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu
from torch import Tensor

from mrcore.data.grid import Grid, Triple, to_world
from mrcore.data.volume import Volume, require_same_grid
from mrcore.errors import BadInputError
from mrcore.spatial.registration import RegisterSettings, block_mean, register, rotation, similarity_at
from mrcore.spatial.resampling import resample

_log = logging.getLogger(__name__)

SMALLEST_SIMILARITY = 0.3
LARGEST_FLIPPED = 0.78
"""A template that fits a flipped head nearly as well has found an outline, not a brain: nine heads of four contrasts
gave 0.53 to 0.72, a fruit 0.83, a phantom 0.97."""
BEYOND_DOUBT = 0.85
"""Similarity that no outline alone reaches: a symmetric head then passes as well."""
LARGEST_BRAIN_L = 2.05
"""Litres: whole brains with their fluid stay below, heads (even of clinical 2-D scans with 12 cm coverage) above."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class BrainMask:
    """A brain mask (bool, X, Y, Z) and how far to trust it.

    `similarity` is that of the template laid over the head (0 to 1, see `mrcore.spatial.registration`), NaN where no
    template was used; `reliable` is False when the template fits poorly.
    """

    mask: Tensor
    method: str
    similarity: float
    reliable: bool
    message: str


@dataclass(frozen=True)
class _Foreground:
    """Facts of the object that fills most of the image."""

    volume_l: float
    clean_background: float
    """Share of the voxels outside that are zero."""
    contact: float
    """Largest share of a face of the field of view that the object covers."""


def is_skull_stripped(volume: Volume) -> bool:
    """Return whether the image shows a brain without its head.

    The sidecar's BIDS key `SkullStripped` decides where present. Otherwise the background must be zero, and the object
    no larger than a brain and not cut off by the field of view. A stripped brain over a noisy background is not
    recognised: give its mask.
    """
    stated = volume.meta.get("SkullStripped")
    if isinstance(stated, bool):
        return stated
    facts = _foreground(_magnitude(volume), volume)
    _log.debug("foreground: %s", facts)
    return facts.clean_background >= 0.94 and 0.05 < facts.volume_l <= LARGEST_BRAIN_L and facts.contact < 0.25


def stripped_mask(volume: Volume) -> Tensor:
    """Return the brain voxels (bool, X, Y, Z) of a skull-stripped image.

    They are the largest connected part above 1 % of its median, holes filled: rims of interpolation, small negative
    values and float noise in the background stay out. Over a noisy background the threshold rises above the noise.

    Raises:
        BadInputError: no part of the image stands out of the background.
    """
    data = _magnitude(volume)
    level = 0.01 * float(np.median(data[data > _object_level(data)]))
    # A brain fills at most half of a box: with a clean background far more voxels than this are below the level.
    if float((data <= level).mean()) < 0.25:
        level = _above_noise(data)
    mask = largest_part(data > level)
    if int(mask.sum()) < 1000:
        raise BadInputError("no brain stands out of the background of this image; give its mask with --mask")
    return torch.from_numpy(ndimage.binary_fill_holes(mask))


def largest_part(mask: Bools) -> Bools:
    """Return the largest part of `mask` that is connected through faces; empty stays empty."""
    labels, n_parts = ndimage.label(mask)
    if n_parts == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    out: Bools = labels == sizes.argmax()
    return out


def _magnitude(volume: Volume) -> NDArray[np.float32]:
    if volume.data.is_complex():
        raise BadInputError("a brain mask needs a magnitude image, got complex data; take its magnitude first")
    data: NDArray[np.float32] = volume.data.cpu().numpy()
    if float(data.max()) <= float(data.min()):
        raise BadInputError("the image is constant: there is no brain in it")
    return data


def _object_level(data: NDArray[np.float32]) -> float:
    """Return a third of the Otsu level of the positive values: below it lies background or what looks like it."""
    positive = data[data > 0]
    if positive.size == 0:
        raise BadInputError("the image has no positive value: there is no brain in it")
    return 0.3 * float(threshold_otsu(np.minimum(positive, np.percentile(positive, 99))))


def _foreground(data: NDArray[np.float32], volume: Volume) -> _Foreground:
    inside = ndimage.binary_fill_holes(largest_part(data > _object_level(data)))
    voxel_l = float(np.prod(volume.grid.spacing_mm)) / 1e6
    tiny = 1e-3 * float(np.median(data[inside]))
    outside = ~inside
    clean = float((np.abs(data[outside]) <= tiny).mean()) if outside.any() else 0.0
    faces = [inside.take(end, axis) for axis in range(3) for end in (0, -1)]
    return _Foreground(float(inside.sum()) * voxel_l, clean, max(float(face.mean()) for face in faces))


def _above_noise(data: NDArray[np.float32]) -> float:
    """Return the level that Rayleigh noise of the background hardly exceeds (mean + 5 sd of the dark half's mode)."""
    dark = data[data < _object_level(data)]
    return float(np.median(dark) + 5 * 0.6551 / 1.1774 * np.median(dark)) if dark.size else 0.0


def require_reliable(brain: BrainMask) -> BrainMask:
    """Return `brain`, or raise when it cannot be trusted.

    Raises:
        BadInputError: the mask is not reliable; the message says why and what to do.
    """
    if not brain.reliable:
        raise BadInputError(f"{brain.message}; give a brain mask with --mask, or a skull-stripped image")
    return brain


def template_brain_mask(head: Volume, template: Volume, template_mask: Volume) -> BrainMask:
    """Find the brain of a head by laying a template's mask over it, then following the intensities at its border.

    `template` is a brain image and `template_mask` its mask (0 to 1, same grid), such as those of ICBM-152. The affine
    of `head` must be right to about 25 degrees. The border is refined by up to 5 mm where voxels are at most 2.5 mm;
    larger voxels keep the template's border. Check `reliable`, or pass the result through `require_reliable`.

    Raises:
        BadInputError: an image that is complex or constant, or a template mask that is empty.
        GridMismatchError: template and mask on different grids.
    """
    require_same_grid(template.grid, template_mask.grid, "the template and its mask")
    _magnitude(head)
    brain = template_mask.data > 0.5
    centre = to_world(template.grid, np.argwhere(brain.numpy())).mean(0)
    ring = torch.from_numpy(
        ndimage.binary_dilation(brain.numpy(), iterations=max(1, round(4 / template.grid.spacing_mm[0])))
    )
    # Heads vary by 7 % in size; a weaker prior lets the template grow to the outline of the head.
    settings = RegisterSettings(scale_sd=0.07)
    found = register(head, template, settings, fixed_mask=ring, starts=head_starts(head, centre))
    similarity = similarity_at(found.motion, head, template, settings, brain)
    flips = [_flip(axes, centre) for axes in ((1.0, -1.0, 1.0), (1.0, 1.0, -1.0), (1.0, -1.0, -1.0))]
    flipped = max(similarity_at(flip @ found.motion, head, template, settings, brain) for flip in flips)
    moved = Volume(
        template_mask.data.float(), Grid(template.grid.shape, np.linalg.inv(found.motion) @ template.grid.affine)
    )
    mask = resample(moved, head.grid, order=1).data.numpy() > 0.5
    method = "template registration"
    if mask.any() and max(head.grid.spacing_mm) <= 2.5:
        mask = _refined(head.data.numpy(), mask, head.grid.spacing_mm)
        method += ", border refined"
    ratio = flipped / max(similarity, 1e-6)
    fits = similarity >= SMALLEST_SIMILARITY and (ratio <= LARGEST_FLIPPED or similarity >= BEYOND_DOUBT)
    reliable = fits and bool(mask.any())
    message = (
        f"the brain template {'fits' if reliable else 'does not fit'} this image: similarity {similarity:.2f} "
        f"(at least {SMALLEST_SIMILARITY} expected), of which a flipped template keeps {ratio:.0%} "
        f"(at most {LARGEST_FLIPPED:.0%})"
    )
    return BrainMask(torch.from_numpy(mask), method, similarity, reliable, message)


def _refined(data: NDArray[np.float32], mask: Bools, spacing_mm: Triple) -> Bools:
    """Follow the intensities at the border of a mask: open tissue-like voxels, keep what hangs on the core, close."""
    margin = [int(np.ceil(12.0 / s)) for s in spacing_mm]
    hits = [np.flatnonzero(mask.any(axis=tuple(b for b in range(3) if b != a))) for a in range(3)]
    window = tuple(slice(max(0, int(h[0]) - m), int(h[-1]) + m + 1) for h, m in zip(hits, margin, strict=True))
    block, start = data[window], mask[window]
    depth = _distance(start, spacing_mm) - _distance(~start, spacing_mm)
    core = depth > 5.0
    if not core.any():
        return mask
    low, high = 0.5 * float(np.median(block[core])), 1.3 * float(np.percentile(block[core], 95))
    tissue = (depth > -5.0) & (block > low) & (block < high)
    eroded = _distance(tissue, spacing_mm) > 2.5
    labels, _ = ndimage.label(eroded | core)
    kept = (labels == np.bincount(labels[core]).argmax()) & eroded
    grown = (_distance(~kept, spacing_mm) <= 2.5) & tissue | (depth > 6.0)
    padded = np.pad(grown, [(m, m) for m in margin])
    closed = _distance(_distance(~padded, spacing_mm) <= 6.0, spacing_mm) > 6.0
    inner = tuple(slice(m, n - m) for m, n in zip(margin, padded.shape, strict=True))
    out = np.zeros_like(mask)
    out[window] = ndimage.binary_fill_holes(largest_part(closed[inner] & (depth > -5.0)))
    return out


def _distance(inside: Bools, spacing_mm: Triple) -> NDArray[np.float32]:
    """Return the distance in mm of each voxel inside to the nearest outside."""
    return np.asarray(ndimage.distance_transform_edt(inside, sampling=spacing_mm), np.float32)


def _flip(signs: Triple, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.diag([*signs, 1.0])
    out[:3, 3] = centre - out[:3, :3] @ centre
    return out


def head_starts(head: Volume, template_centre_mm: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return guesses of the motion from a head to the template: its brain lies 7 to 11 cm under the vertex."""
    coarse = block_mean(head, 4.0)
    data = coarse.data.numpy()
    voxels = np.argwhere(largest_part(data > _object_level(data)))
    world = to_world(coarse.grid, voxels)
    top = float(np.percentile(world[:, 2], 99.8))
    upper = world[world[:, 2] > top - 130.0]
    x, y = (float(np.percentile(upper[:, a], [1, 99]).mean()) for a in range(2))
    starts = []
    for depth_mm in (70.0, 80.0, 90.0, 100.0, 110.0):
        for pitch in (-0.4, -0.2, 0.0, 0.2, 0.4):
            motion = rotation((pitch, 0.0, 0.0)) @ np.diag([1.06, 1.06, 1.06, 1.0])
            motion[:3, 3] = template_centre_mm - motion[:3, :3] @ np.array([x, y, top - depth_mm])
            starts.append(motion)
    return starts
