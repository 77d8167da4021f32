"""Operators that act voxel by voxel: weights, coil sensitivities, real data as complex ones."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from mrcore.errors import BadInputError
from mrcore.operators.linop import LinearOp, Shape, moved_to, real_dtype, require_constant


@final
class DiagonalOp(LinearOp):
    """Pointwise product with `weight`, whose shape is that of the domain; complex weights need complex data."""

    def __init__(self, weight: Tensor) -> None:
        require_constant(weight, "the weight of a diagonal operator")
        self.weight = weight
        self.shape_in = self.shape_out = tuple(weight.shape)
        self.dtype, self.device = weight.dtype, weight.device
        if weight.is_complex():
            self.complex_in = self.complex_out = True

    def _apply(self, x: Tensor) -> Tensor:
        return self.weight * x

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.weight.conj() * y

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> DiagonalOp:
        return DiagonalOp(moved_to(self.weight, device, dtype))


@final
class CoilOp(LinearOp):
    """One image (X, Y, Z) seen by C coils: product with complex sensitivities (C, X, Y, Z)."""

    complex_in = complex_out = True

    def __init__(self, sensitivity: Tensor) -> None:
        if not sensitivity.is_complex() or sensitivity.ndim < 2:
            raise BadInputError(
                f"coil sensitivities must be complex (C, ...), got {sensitivity.dtype} {tuple(sensitivity.shape)}"
            )
        require_constant(sensitivity, "a coil sensitivity")
        self.sensitivity = sensitivity
        self.shape_in, self.shape_out = tuple(sensitivity.shape[1:]), tuple(sensitivity.shape)
        self.dtype, self.device = sensitivity.dtype, sensitivity.device

    def _apply(self, x: Tensor) -> Tensor:
        return self.sensitivity * x.unsqueeze(-len(self.shape_in) - 1)

    def _adjoint(self, y: Tensor) -> Tensor:
        return (self.sensitivity.conj() * y).sum(-len(self.shape_in) - 1)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> CoilOp:
        return CoilOp(moved_to(self.sensitivity, device, dtype))


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
