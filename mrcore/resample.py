"""Resampling through world space: an operator with an exact adjoint, and spline interpolation for images."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from mrcore.grid import Grid
from mrcore.linop import LinearOp
from mrcore.volume import Volume

_SLAB_VOXELS = 2_000_000


@final
class ResampleOp(LinearOp):
    """Trilinear resampling from `source` to `target` grid, with an optional affine motion of the object.

    `motion` (4 x 4, world mm) moves the object before it is sampled; None is the identity. Positions outside the
    source read 0. The adjoint scatters with the same weights.
    """

    def __init__(
        self,
        source: Grid,
        target: Grid,
        motion: NDArray[np.float64] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.source, self.target, self.motion = source, target, motion
        self.shape_in, self.shape_out = source.shape, target.shape
        self.dtype, self.device = dtype, torch.device(device)
        world = target.affine if motion is None else np.linalg.inv(motion) @ target.affine
        self._matrix = np.linalg.inv(source.affine) @ world

    def _apply(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, int(np.prod(self.shape_in)))
        parts = [sum(weight * flat[:, index] for index, weight in self._corners(slab)) for slab in self._slabs()]
        return torch.cat([torch.as_tensor(p) for p in parts], -1).reshape(*x.shape[:-3], *self.shape_out)

    def _adjoint(self, y: Tensor) -> Tensor:
        flat = y.reshape(-1, self.shape_out[0], self.shape_out[1] * self.shape_out[2])
        out = y.new_zeros(flat.shape[0], int(np.prod(self.shape_in)))
        for slab in self._slabs():
            block = flat[:, slab].reshape(flat.shape[0], -1)
            for index, weight in self._corners(slab):
                out.index_add_(1, index, weight * block)
        return out.reshape(*y.shape[:-3], *self.shape_in)

    def _slabs(self) -> list[slice]:
        step = max(1, _SLAB_VOXELS // (self.shape_out[1] * self.shape_out[2]))
        return [slice(i, min(i + step, self.shape_out[0])) for i in range(0, self.shape_out[0], step)]

    def _corners(self, slab: slice) -> list[tuple[Tensor, Tensor]]:
        """Return flat source index and weight of each of the 8 neighbours, for the target slab."""
        i, j, k = (
            torch.arange(a, b, device=self.device, dtype=torch.float64)
            for a, b in ((slab.start, slab.stop), (0, self.shape_out[1]), (0, self.shape_out[2]))
        )
        low, part = [], []
        for row in self._matrix[:3]:
            p = (row[0] * i[:, None, None] + row[1] * j[:, None] + row[2] * k + row[3]).reshape(-1)
            # Positions that rounding pushed off a voxel centre go back onto it: identity is then exact.
            p = torch.where((p - p.round()).abs() < 1e-9, p.round(), p)
            low.append(p.floor())
            part.append(p - low[-1])
        corners = []
        for corner in range(8):
            index = torch.zeros_like(low[0], dtype=torch.int64)
            weight = torch.ones_like(low[0])
            for axis, n in enumerate(self.shape_in):
                bit = (corner >> axis) & 1
                at = low[axis] + bit
                weight = weight * torch.where((at >= 0) & (at < n), part[axis] if bit else 1 - part[axis], 0.0)
                index = index * n + at.clamp(0, n - 1).to(torch.int64)
            corners.append((index, weight.to(self.dtype)))
        return corners

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> ResampleOp:
        return ResampleOp(self.source, self.target, self.motion, dtype or self.dtype, device)


def resample(volume: Volume, target: Grid, order: int = 3) -> Volume:
    """Interpolate `volume` onto `target` with splines of `order` (0 nearest, 1 linear, 3 cubic); outside is 0.

    No smoothing is done: to go to larger voxels use the acquisition model.
    """
    matrix = np.linalg.inv(volume.grid.affine) @ target.affine
    matrix = np.where(np.abs(matrix - np.round(matrix)) < 1e-9, np.round(matrix), matrix)
    data = ndimage.affine_transform(
        volume.data.cpu().numpy(), matrix, output_shape=target.shape, order=order, mode="grid-constant", cval=0.0
    )
    return Volume(torch.from_numpy(data), target, volume.meta)
