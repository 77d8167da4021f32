"""Whether two scans show the same head in the same place: what a pair must be before anything is learnt from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from mrcore.data.grid import Grid, to_world
from mrcore.data.volume import Volume, require_same_grid
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.notes import Caution
from mrcore.segmentation.foreground import Bools, largest_part
from mrcore.spatial.registration import block_mean

SMALLEST_OVERLAP = 0.5
SMALLEST_CORRELATION = 0.5
"""Three heads and their own low-field images (blurred, SNR 3 to 10, signal to the power .4 to 2) correlated by .94 to 1
in blocks of 8 mm; moved by 5 mm by .60 to .72, by 10 mm .36 to .48, by 20 mm -.01 to .33, upside down -.16 to .20.
T1w with T2w and FLAIR heads of one person -.48 to .44; stripped, two brains with T2w -.26 and -.11, with FLAIR .67 and
.73: a FLAIR in the place of a T1w scan passes."""
DOUBTFUL_CORRELATION = 0.7
_BLOCK_MM = 8.0
_REGISTER = "register the low-field scan to the high-field scan, resample it onto its grid and look at both"


@dataclass(frozen=True)
class Likeness:
    """How alike two scans on one grid are, in blocks of 8 mm.

    Attributes:
        overlap: share of the smaller of the two objects that lies in the other.
        correlation: Pearson's, of the blocks of either object.
    """

    overlap: float
    correlation: float


def likeness(high: Volume, low: Volume) -> Likeness:
    """Return how alike two magnitude images on one grid are."""
    blocks = [block_mean(Volume(v.data.float().clamp_min(0), v.grid), _BLOCK_MM).data.numpy() for v in (high, low)]
    objects = [_object(block) for block in blocks]
    both, either = objects[0] & objects[1], objects[0] | objects[1]
    x, y = (block[either].astype(np.float64) for block in blocks)
    spread = float(x.std() * y.std())
    correlation = float(np.mean((x - x.mean()) * (y - y.mean()))) / spread if spread > 0 else 0.0
    return Likeness(float(both.sum()) / float(min(o.sum() for o in objects)), correlation)


def require_alike(name: str, found: Likeness) -> None:
    """Refuse a pair that does not overlap in space or does not correlate.

    Raises:
        BadInputError: the message has the numbers, what was expected, and what to do.
    """
    if found.overlap < SMALLEST_OVERLAP:
        raise BadInputError(
            f"the heads of pair '{name}' do not overlap: {found.overlap:.0%} of the smaller one lies in the other (at "
            f"least {SMALLEST_OVERLAP:.0%} expected); {_REGISTER}"
        )
    if found.correlation < SMALLEST_CORRELATION:
        raise BadInputError(
            f"the scans of pair '{name}' do not correlate: {found.correlation:.2f} in blocks of 8 mm (at least "
            f"{SMALLEST_CORRELATION} expected), so they are not registered, of two persons or of two contrasts; "
            f"{_REGISTER}, or give scans of one person and contrast"
        )


def likeness_notes(name: str, found: Likeness) -> list[str]:
    """Return a caution where a pair correlates so weakly that its registration is in doubt."""
    if found.correlation >= DOUBTFUL_CORRELATION:
        return []
    text = f"the scans of pair '{name}' correlate by {found.correlation:.2f} in blocks of 8 mm"
    return [Caution(f"{text}; registered scans reach {DOUBTFUL_CORRELATION} and more: {_REGISTER}", 0)]


def require_one_grid(name: str, high: Grid, low: Grid) -> None:
    """Refuse two grids, and say how far they overlap in space.

    Raises:
        GridMismatchError: the grids differ.
    """
    what = f"the high-field and the low-field scan of pair '{name}'"
    try:
        require_same_grid(high, low, what)
    except GridMismatchError as error:
        share = _share_inside(low, high)
        text = f"{share:.0%} of the low-field scan's field of view lies in that of the high-field scan"
        raise GridMismatchError(f"{error} ({text}; {_REGISTER})") from None


def _object(block: NDArray[np.float32]) -> Bools:
    """Return the object in an image of blocks, by Otsu's level: air is darker even where it is noisy."""
    bright = largest_part(block > threshold_otsu(np.minimum(block, np.percentile(block, 99)).ravel()))
    return np.asarray(ndimage.binary_fill_holes(bright), bool) if bright.any() else block > 0


def _share_inside(inner: Grid, outer: Grid) -> float:
    """Return the share of a grid's box that lies in the box of another."""
    steps = [(np.arange(20) + 0.5) / 20 * n - 0.5 for n in inner.shape]
    points = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 3)
    voxel = (to_world(inner, points) - outer.affine[:3, 3]) @ np.linalg.inv(outer.affine[:3, :3]).T
    return float(((voxel >= -0.5) & (voxel <= np.array(outer.shape) - 0.5)).all(1).mean())
