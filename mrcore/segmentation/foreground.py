"""What stands out of an image's background."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from mrcore.errors import BadInputError

Bools = NDArray[np.bool_]


def largest_part(mask: Bools) -> Bools:
    """Return the largest part of `mask` that is connected through faces; empty stays empty."""
    labels, n_parts = ndimage.label(mask)
    if n_parts == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    out: Bools = labels == sizes.argmax()
    return out


def object_level(data: NDArray[np.float32]) -> float:
    """Return a third of the Otsu level of the positive values: below it lies background or what looks like it.

    Raises:
        BadInputError: no value is positive.
    """
    positive = data[data > 0]
    if positive.size == 0:
        raise BadInputError("the image has no positive value: there is no brain in it")
    return 0.3 * float(threshold_otsu(np.minimum(positive, np.percentile(positive, 99))))
