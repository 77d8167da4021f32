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

from mrcore.errors import BadInputError
from mrcore.volume import Volume

_log = logging.getLogger(__name__)

LARGEST_BRAIN_L = 2.05
"""Litres: whole brains with their fluid stay below, heads (even of clinical 2-D scans with 12 cm coverage) above."""

Bools = NDArray[np.bool_]


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
    said = volume.meta.get("SkullStripped")
    if isinstance(said, bool):
        return said
    facts = _foreground(_magnitude(volume), volume)
    _log.debug("foreground: %s", facts)
    return facts.clean_background >= 0.94 and 0.05 < facts.volume_l <= LARGEST_BRAIN_L and facts.contact < 0.25


def stripped_mask(volume: Volume) -> Tensor:
    """Return the brain voxels (bool, X, Y, Z) of a skull-stripped image.

    They are the largest connected part above 1 % of the median, holes filled: rims of interpolation, small negative
    values and float noise in the background stay out. Over a noisy background the threshold rises above the noise.

    Raises:
        BadInputError: no part of the image stands out of the background.
    """
    data = _magnitude(volume)
    level = 0.01 * float(np.median(data[data > 0])) if (data > 0).any() else 0.0
    if float((data <= level).mean()) < 0.1:
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
