"""Operators that move voxels: crop and permutation of axes."""

from __future__ import annotations

from types import EllipsisType
from typing import final

import torch
from torch import Tensor

from mrcore.errors import BadInputError
from mrcore.operators.linop import CPU, LinearOp, Shape


@final
class CropOp(LinearOp):
    """Central crop from `shape_in` to the smaller `shape_out`, voxel `n // 2` onto `n // 2`; its adjoint pads."""

    def __init__(
        self,
        shape_in: Shape,
        shape_out: Shape,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = CPU,
    ) -> None:
        if len(shape_in) != len(shape_out) or any(o > i for i, o in zip(shape_in, shape_out, strict=True)):
            raise BadInputError(f"a crop must not enlarge an axis: {shape_in} -> {shape_out}")
        self.shape_in, self.shape_out = tuple(shape_in), tuple(shape_out)
        self.dtype, self.device = dtype, torch.device(device)
        starts = [i // 2 - o // 2 for i, o in zip(shape_in, shape_out, strict=True)]
        window = (slice(s, s + o) for s, o in zip(starts, shape_out, strict=True))
        self._window: tuple[slice | EllipsisType, ...] = (..., *window)

    def _apply(self, x: Tensor) -> Tensor:
        return x[self._window].clone()

    def _adjoint(self, y: Tensor) -> Tensor:
        out = y.new_zeros((*y.shape[: y.ndim - len(self.shape_in)], *self.shape_in))
        out[self._window] = y
        return out

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> CropOp:
        return CropOp(self.shape_in, self.shape_out, dtype or self.dtype, device)


@final
class PermuteOp(LinearOp):
    """Reorder the three axes: axis `a` of the result is axis `axes[a]` of the data, `shape_in` long."""

    def __init__(
        self,
        shape_in: Shape,
        axes: tuple[int, int, int],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = CPU,
    ) -> None:
        if len(shape_in) != 3 or sorted(axes) != [0, 1, 2]:
            raise BadInputError(f"expected three sizes and an order of the axes 0, 1, 2, got {shape_in} and {axes}")
        self.axes = axes
        self.shape_in, self.shape_out = tuple(shape_in), tuple(shape_in[a] for a in axes)
        self.dtype, self.device = dtype, torch.device(device)

    def _apply(self, x: Tensor) -> Tensor:
        return _permuted(x, self.axes)

    def _adjoint(self, y: Tensor) -> Tensor:
        return _permuted(y, (self.axes.index(0), self.axes.index(1), self.axes.index(2)))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> PermuteOp:
        return PermuteOp(self.shape_in, self.axes, dtype or self.dtype, device)


def _permuted(x: Tensor, axes: tuple[int, int, int]) -> Tensor:
    n_batch = x.ndim - 3
    return x.permute(*range(n_batch), *(n_batch + a for a in axes)).contiguous()
