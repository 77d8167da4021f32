"""Edges of an image against those of a reference: Canny edges, slice by slice, and their F1 score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import canny
from torch import Tensor

from mrcore.errors import BadInputError


@dataclass(frozen=True)
class EdgeSettings:
    """How edges are found (Canny, IEEE PAMI 1986;8:679).

    Attributes:
        sigma_voxels: Gaussian smoothing in the plane of a slice, before gradients.
        low_quantile: of the reference's gradient magnitude in the mask: edges are followed down to it.
        high_quantile: of the same: an edge must reach it somewhere.
        axes: voxel axes across which the volume is sliced. All three by default: slices along the thick direction of
            a scan alone would not see its blur.
    """

    sigma_voxels: float = 1.0
    low_quantile: float = 0.5
    high_quantile: float = 0.8
    axes: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        if self.sigma_voxels <= 0:
            raise BadInputError(f"sigma_voxels must be positive, got {self.sigma_voxels}")
        if not 0 <= self.low_quantile <= self.high_quantile <= 1:
            raise BadInputError(
                f"edge quantiles must satisfy 0 <= low <= high <= 1, got {self.low_quantile} and {self.high_quantile}"
            )
        if not self.axes or not set(self.axes) <= {0, 1, 2}:
            raise BadInputError(f"edge axes must be some of 0, 1 and 2, got {self.axes}")


DEFAULT_EDGES = EdgeSettings()


@dataclass(frozen=True, eq=False)
class ReferenceEdges:
    """Edges of a reference, boolean (n axes, X, Y, Z), and the (low, high) threshold of each axis they came from."""

    edges: NDArray[np.bool_]
    thresholds: tuple[tuple[float, float], ...]
    mask: NDArray[np.bool_]
    settings: EdgeSettings


@dataclass(frozen=True, eq=False)
class EdgePair:
    """Edges of both images, boolean (n axes, X, Y, Z): entry `a` was found in slices across `settings.axes[a]`."""

    reference: NDArray[np.bool_]
    image: NDArray[np.bool_]
    settings: EdgeSettings


def edge_f1(
    reference: Tensor,
    image: Tensor,
    mask: Tensor,
    tolerance_voxels: float = 1.0,
    settings: EdgeSettings = DEFAULT_EDGES,
) -> float:
    """Return the F1 score of the image's Canny edges against those of the reference.

    Edges are found in every slice of both images, with thresholds set by the reference alone and used for both; see
    `EdgeSettings` and `f1_of`.
    """
    return f1_of(find_edges(reference_edges(reference, mask, settings), image), tolerance_voxels)


def reference_edges(reference: Tensor, mask: Tensor, settings: EdgeSettings = DEFAULT_EDGES) -> ReferenceEdges:
    """Find the edges of a reference (X, Y, Z) in `mask`, and thresholds that will serve for any image.

    Only voxels in the mask are smoothed and looked at, so the mask's own border is no edge.

    Raises:
        BadInputError: shapes that differ, or a mask without inner voxels.
    """
    _require_shape(reference, mask)
    brain, values = mask.cpu().numpy(), _values(reference)
    thresholds = tuple(_thresholds(values, brain, axis, settings) for axis in settings.axes)
    return ReferenceEdges(_edges(values, brain, thresholds, settings), thresholds, brain, settings)


def find_edges(reference: ReferenceEdges, image: Tensor) -> EdgePair:
    """Find the edges of `image` in the reference's mask, with the reference's thresholds."""
    if tuple(image.shape) != reference.mask.shape:
        raise BadInputError(f"the image is {tuple(image.shape)} but the reference {reference.mask.shape}")
    edges = _edges(_values(image), reference.mask, reference.thresholds, reference.settings)
    return EdgePair(reference.edges, edges, reference.settings)


def f1_of(edges: EdgePair, tolerance_voxels: float = 1.0, region: Tensor | None = None) -> float:
    """Return 2 P R / (P + R), pooled over all slices and axes; 0 where nothing matches.

    Precision P: share of the image's edge voxels with an edge of the reference within `tolerance_voxels` (Euclidean,
    in the plane of the slice); recall R: the same with the two exchanged. `region` limits the counted voxels, not
    those that they may match.
    """
    where = np.ones(edges.image.shape[1:], bool) if region is None else region.cpu().numpy()
    hit, near, n_image, n_reference = 0, 0, 0, 0
    for index, axis in enumerate(edges.settings.axes):
        footprint = _disc(tolerance_voxels, axis)
        ours, theirs = edges.image[index], edges.reference[index]
        hit += int((ours & _grown(theirs, footprint) & where).sum())
        near += int((theirs & _grown(ours, footprint) & where).sum())
        n_image += int((ours & where).sum())
        n_reference += int((theirs & where).sum())
    if hit == 0 or near == 0:
        return 0.0
    precision, recall = hit / n_image, near / n_reference
    return 2 * precision * recall / (precision + recall)


def _require_shape(reference: Tensor, mask: Tensor) -> None:
    if reference.shape != mask.shape or mask.ndim != 3 or not bool(mask.any()):
        raise BadInputError("edges need a reference and a non-empty mask (X, Y, Z) of one shape")


def _values(image: Tensor) -> NDArray[np.float32]:
    return np.asarray(image.detach().cpu().numpy(), np.float32)


def _edges(
    values: NDArray[np.float32],
    mask: NDArray[np.bool_],
    thresholds: tuple[tuple[float, float], ...],
    settings: EdgeSettings,
) -> NDArray[np.bool_]:
    pairs = zip(settings.axes, thresholds, strict=True)
    return np.stack([_canny_slices(values, mask, axis, *limits, settings.sigma_voxels) for axis, limits in pairs])


def _canny_slices(
    values: NDArray[np.float32], mask: NDArray[np.bool_], axis: int, low: float, high: float, sigma: float
) -> NDArray[np.bool_]:
    edges = np.zeros(mask.shape, bool)
    slices, brain, out = (np.moveaxis(x, axis, 0) for x in (values, mask, edges))
    for i in np.flatnonzero(brain.any(axis=(1, 2))):
        out[i] = canny(slices[i], sigma=sigma, low_threshold=low, high_threshold=high, mask=brain[i])
    return edges


def _thresholds(
    reference: NDArray[np.float32], mask: NDArray[np.bool_], axis: int, settings: EdgeSettings
) -> tuple[float, float]:
    """Return the two quantiles of the reference's smoothed Sobel magnitude over the mask, less its border."""
    sigma = [0.0 if a == axis else settings.sigma_voxels for a in range(3)]
    in_plane = [a for a in range(3) if a != axis]
    weight = ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="constant")
    smooth = ndimage.gaussian_filter(np.where(mask, reference, 0), sigma, mode="constant") / np.maximum(weight, 1e-6)
    u, v = in_plane
    magnitude = np.hypot(_sobel(smooth, u, v), _sobel(smooth, v, u))
    square = np.ones([1 if a == axis else 3 for a in range(3)], bool)
    inner = ndimage.binary_erosion(mask, square)
    if not inner.any():
        raise BadInputError("the mask is too thin for edges: no voxel has all its neighbours in a slice inside")
    low, high = np.quantile(magnitude[inner], (settings.low_quantile, settings.high_quantile))
    return float(low), float(high)


def _sobel(values: NDArray[np.float32], along: int, across: int) -> NDArray[np.float32]:
    """Return the 2-D Sobel derivative, on the scale that Canny's thresholds are compared with (1 per unit is 8)."""
    derivative = ndimage.correlate1d(values, [-1, 0, 1], axis=along)
    return cast("NDArray[np.float32]", ndimage.correlate1d(derivative, [1, 2, 1], axis=across))


def _disc(radius: float, axis: int) -> NDArray[np.bool_]:
    n = int(radius)
    offset = np.arange(-n, n + 1)
    disc = offset[:, None] ** 2 + offset[None] ** 2 <= radius**2
    return np.expand_dims(disc, axis)


def _grown(edges: NDArray[np.bool_], footprint: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if footprint.size == 1:
        return edges
    return np.asarray(ndimage.binary_dilation(edges, footprint), bool)
