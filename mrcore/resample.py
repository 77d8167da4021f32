"""Resampling through world space: an operator with an exact adjoint, and spline interpolation for images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from mrcore.errors import BadInputError
from mrcore.grid import Grid
from mrcore.linop import LinearOp, Shape
from mrcore.volume import Volume

_SLAB_VOXELS = 100_000


@final
class ResampleOp(LinearOp):
    """Trilinear resampling from `source` to `target` grid, with an optional affine motion of the object.

    `motion` (4 x 4, world mm) moves the object before it is sampled; None is the identity. Positions outside the
    source read 0. The adjoint scatters with the same weights. Index arithmetic is in float64.

    Raises:
        BadInputError: a motion that is not a finite, invertible 4 x 4 matrix.
    """

    def __init__(
        self,
        source: Grid,
        target: Grid,
        motion: NDArray[np.float64] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if motion is not None and not _is_invertible(motion):
            raise BadInputError("a motion must be a finite, invertible 4 x 4 matrix, world mm to world mm")
        self.source, self.target, self.motion = source, target, motion
        self.shape_in, self.shape_out = source.shape, target.shape
        self.dtype, self.device = dtype, torch.device(device)
        world = target.affine if motion is None else np.linalg.inv(motion) @ target.affine
        self._matrix = np.linalg.inv(source.affine) @ world

    def _apply(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, math.prod(self.shape_in))
        out = x.new_zeros(flat.shape[0], math.prod(self.shape_out))
        for voxels in self._slabs():
            for index, weight in self._corners(voxels):
                out[:, voxels] += weight * flat.index_select(1, index)
        return out.reshape(*x.shape[:-3], *self.shape_out)

    def _adjoint(self, y: Tensor) -> Tensor:
        flat = y.reshape(-1, math.prod(self.shape_out))
        out = y.new_zeros(flat.shape[0], math.prod(self.shape_in))
        for voxels in self._slabs():
            for index, weight in self._corners(voxels):
                out.index_add_(1, index, weight * flat[:, voxels])
        return out.reshape(*y.shape[:-3], *self.shape_in)

    def _slabs(self) -> Iterator[slice]:
        """Cut the flat target into whole planes of the first axis, few at a time: memory stays small."""
        plane = self.shape_out[1] * self.shape_out[2]
        step = max(1, _SLAB_VOXELS // plane) * plane
        n_voxels = math.prod(self.shape_out)
        return (slice(start, min(start + step, n_voxels)) for start in range(0, n_voxels, step))

    def _corners(self, voxels: slice) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield flat source index and weight of each of the 8 neighbours of the target `voxels`."""
        plane = self.shape_out[1] * self.shape_out[2]
        starts, sizes = (voxels.start // plane, 0, 0), ((voxels.stop - voxels.start) // plane, *self.shape_out[1:])
        i, j, k = (
            torch.arange(a, a + n, device=self.device, dtype=torch.float64) for a, n in zip(starts, sizes, strict=True)
        )
        sides = []
        for row, n, stride in zip(self._matrix[:3], self.shape_in, _strides(self.shape_in), strict=True):
            p = (row[0] * i[:, None, None] + row[1] * j[:, None] + (row[2] * k + row[3])).reshape(-1)
            sides.append(_two_neighbours(p, n, stride, self.dtype))
        for first, second in itertools.product(sides[0], sides[1]):
            index, weight = first[0] + second[0], first[1] * second[1]
            for third in sides[2]:
                yield index + third[0], weight * third[1]

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> ResampleOp:
        return ResampleOp(self.source, self.target, self.motion, dtype or self.dtype, device)


def _is_invertible(motion: NDArray[np.float64]) -> bool:
    return np.shape(motion) == (4, 4) and bool(np.isfinite(motion).all()) and np.linalg.matrix_rank(motion) == 4


def _strides(shape: Shape) -> tuple[int, int, int]:
    return shape[1] * shape[2], shape[2], 1


def _two_neighbours(p: Tensor, n: int, stride: int, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Return flat offset and linear weight of the voxels below and above positions `p` on an axis of `n`."""
    # Positions that rounding pushed off a voxel centre go back onto it: identity is then exact.
    centre = p.round()
    p = torch.where((p - centre).abs() < 1e-9, centre, p)
    low = p.floor()
    above = p - low
    sides = []
    for at, weight in ((low, 1 - above), (low + 1, above)):
        weight = torch.where((at >= 0) & (at < n), weight, 0.0).to(dtype)
        sides.append((at.clamp(0, n - 1).to(torch.int64) * stride, weight))
    return sides


def resample(volume: Volume, target: Grid, order: int = 3) -> Volume:
    """Interpolate `volume` onto `target` with splines of `order` (0 nearest, 1 linear, 3 cubic); outside is 0.

    No smoothing is done: to go to larger voxels use the acquisition model. Onto its own grid a volume stays as it is.

    Raises:
        BadInputError: an order below 0 or above 5.
    """
    if not 0 <= order <= 5:
        raise BadInputError(f"the order of a spline is 0 to 5, got {order}")
    matrix = np.linalg.inv(volume.grid.affine) @ target.affine
    matrix = np.where(np.abs(matrix - np.round(matrix)) < 1e-9, np.round(matrix), matrix)
    if volume.grid.shape == target.shape and np.array_equal(matrix, np.eye(4)):
        return Volume(volume.data, target, volume.meta)
    data = ndimage.affine_transform(
        volume.data.cpu().numpy(), matrix, output_shape=target.shape, order=order, mode="grid-constant", cval=0.0
    )
    return Volume(torch.from_numpy(data), target, volume.meta)
