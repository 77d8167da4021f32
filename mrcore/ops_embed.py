"""Operator that takes real data to complex ones."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from mrcore.linop import LinearOp, Shape, real_dtype


@final
class ComplexOp(LinearOp):
    """Real data as complex ones with an imaginary part of 0; linear over the reals, its adjoint is the real part."""

    complex_in, complex_out = False, True

    def __init__(self, shape: Shape, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> None:
        self.shape_in = self.shape_out = tuple(shape)
        self.dtype, self.device = real_dtype(dtype), torch.device(device)

    def _apply(self, x: Tensor) -> Tensor:
        return torch.complex(x, torch.zeros_like(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return y.real.clone()

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> ComplexOp:
        return ComplexOp(self.shape_in, dtype or self.dtype, device)
