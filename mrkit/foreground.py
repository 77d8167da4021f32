"""Where the object is in an image of noise and aliasing."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from skimage.filters import threshold_otsu
from torch import Tensor

_SMOOTHING_VOXELS = 1.0
_OF_THRESHOLD = 0.5  # Otsu's lies midway between object and air; dark tissue is below it


def object_mask(image: Tensor) -> Tensor:
    """Return the voxels (bool) of the largest bright part of a magnitude image (X, Y, Z), holes filled.

    The threshold is half of Otsu's, on the smoothed image; slices are filled one by one across the last axis.
    """
    values = image.detach().cpu().numpy().astype(np.float64)
    smooth = ndimage.gaussian_filter(values, [_SMOOTHING_VOXELS if n > 1 else 0.0 for n in values.shape])
    if smooth.max() <= smooth.min():
        return torch.ones(image.shape, dtype=torch.bool)
    parts, n_parts = ndimage.label(smooth > _OF_THRESHOLD * threshold_otsu(smooth))
    sizes = np.bincount(parts.reshape(-1), minlength=n_parts + 1)
    sizes[0] = 0
    filled = [ndimage.binary_fill_holes(part) for part in np.moveaxis(parts == sizes.argmax(), -1, 0)]
    return torch.from_numpy(np.stack(filled, -1))
