"""Drift: whether an image has moved against its scan, as a whole or in places.

Both are compared where they can be, on the scan: a displacement d of the object changes what is predicted of it by
-grad(predicted) . d, so that the residual against the scan gives d by least squares (Lucas & Kanade, IJCAI 1981), for
a rigid motion of the whole and, in Gaussian windows, for every place. Noise and unknown intensities, as they are not
edges, hardly matter; a factor and an offset are fitted with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from mrcore.data.brief import Brief
from mrcore.data.grid import Triple
from mrcore.errors import BadInputError

WINDOW_MM = 20.0
"""Full width at half maximum of the windows in which local displacements are solved for."""
FAR_VOXELS = 0.5
"""Displacement, in scan voxels along its axis, beyond which an image does not lie where its scan does."""

_TRUSTED = 0.25  # part of the median information of windows below which a local displacement is not told


@dataclass(frozen=True, eq=False, repr=False)
class Drift(Brief):
    """Displacement of an image against its scan, along the scan's axes.

    Attributes:
        shift_mm: of the centre of the mask.
        turn_deg: about the three axes of the scan.
        local_mm: displacement (3, x, y, z) in windows; 0 where there are too few edges to tell.
        largest_mm: 99th percentile over the mask of its magnitude.
        largest_voxels: the largest of the shift and of the 99th percentiles along each axis, in voxels of that axis.
    """

    shift_mm: Triple
    turn_deg: Triple
    local_mm: NDArray[np.float64]
    largest_mm: float
    largest_voxels: float

    @property
    def alarm(self) -> bool:
        """Whether the image lies more than `FAR_VOXELS` from its scan."""
        return self.largest_voxels > FAR_VOXELS


def image_drift(scan: Tensor, predicted: Tensor, voxel_mm: Triple, mask: Tensor) -> Drift:
    """Return how far the image behind `predicted` (x, y, z), its noise-free scan, lies from `scan`, inside `mask`.

    Displacements are those that the image would have to undergo to fit; they are exact for small ones, about a voxel.

    Raises:
        BadInputError: shapes that differ, or a mask with fewer than 100 voxels.
    """
    if not scan.shape == predicted.shape == mask.shape or int(mask.sum()) < 100:
        raise BadInputError(
            f"drift needs scan, prediction and mask of one shape and 100 voxels inside, got {tuple(scan.shape)}, "
            f"{tuple(predicted.shape)} and {int(mask.sum())} voxels"
        )
    inside, model = mask.numpy(), predicted.double().numpy()
    residual = scan.double().numpy() - model
    slopes = np.stack([np.gradient(model, spacing, axis=a) for a, spacing in enumerate(voxel_mm)])
    shift, turn = _rigid(residual, model, slopes, inside, voxel_mm)
    local = _local(residual, slopes, inside, voxel_mm)
    size = np.percentile(np.linalg.norm(local[:, inside], axis=0), 99)
    along = [float(np.percentile(np.abs(local[a][inside]), 99)) for a in range(3)]
    voxels = [max(abs(s), f) / v for s, f, v in zip(shift, along, voxel_mm, strict=True)]
    return Drift(shift, turn, local, float(size), max(voxels))


def _rigid(
    residual: NDArray[np.float64],
    model: NDArray[np.float64],
    slopes: NDArray[np.float64],
    inside: NDArray[np.bool_],
    voxel_mm: Triple,
) -> tuple[Triple, Triple]:
    """Return shift (mm) and turn (deg) by least squares, with a factor and an offset of intensity beside them."""
    at = np.stack(np.nonzero(inside)).astype(float) * np.array(voxel_mm)[:, None]
    at -= at.mean(1, keepdims=True)
    g = slopes[:, inside]
    # A turn w displaces by w x r: the slope along it is g . (w x r) = w . (r x g).
    turned = np.cross(at, g, axis=0)
    columns = np.concatenate([-g, -turned, model[inside][None], np.ones((1, g.shape[1]))]).T
    found = np.linalg.lstsq(columns, residual[inside], rcond=None)[0]
    shift, turn = (tuple(float(v) for v in part) for part in (found[:3], np.rad2deg(found[3:6])))
    return (shift[0], shift[1], shift[2]), (turn[0], turn[1], turn[2])


def _local(
    residual: NDArray[np.float64], slopes: NDArray[np.float64], inside: NDArray[np.bool_], voxel_mm: Triple
) -> NDArray[np.float64]:
    sigma = [WINDOW_MM / math.sqrt(8 * math.log(2)) / v for v in voxel_mm]

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(ndimage.gaussian_filter(np.where(inside, values, 0.0), sigma, mode="constant"))

    normal = np.empty((*inside.shape, 3, 3))
    for a in range(3):
        for b in range(a, 3):
            normal[..., a, b] = normal[..., b, a] = mean(slopes[a] * slopes[b])
    right = np.stack([mean(-slopes[a] * residual) for a in range(3)], -1)
    information = np.trace(normal, axis1=-2, axis2=-1)
    typical = float(np.median(information[inside]))
    normal += max(_TRUSTED * typical, 1e-12) * np.eye(3) / 3
    found = np.linalg.solve(normal, right[..., None])[..., 0]
    return np.where(inside, np.moveaxis(found, -1, 0), 0.0)
