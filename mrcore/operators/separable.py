"""Kronecker products of one matrix per axis."""

from __future__ import annotations

import itertools
import math
from typing import final

import torch
from torch import Tensor

from mrcore.errors import BadInputError
from mrcore.operators.linop import LinearOp, moved_to, require_constant, same_device


@final
class SeparableOp(LinearOp):
    """Kronecker product of three real matrices (m_a, n_a), one per axis: (..., n_0, n_1, n_2) to (..., m_0, m_1, m_2).

    Applied as three small matrix products, in the order that needs the fewest operations; the adjoint takes the
    transposes in the reverse order, which is its cheapest.
    """

    def __init__(self, matrices: tuple[Tensor, Tensor, Tensor]) -> None:
        if len(matrices) != 3 or any(m.ndim != 2 or m.is_complex() for m in matrices):
            raise BadInputError("a separable operator needs three real matrices (n_out, n_in), one per axis")
        for m in matrices:
            require_constant(m, "a matrix of a separable operator")
            if m.dtype != matrices[0].dtype or not same_device(m.device, matrices[0].device):
                raise BadInputError("the three matrices of a separable operator need one dtype and one device")
        self.matrices = matrices
        self.shape_in = tuple(int(m.shape[1]) for m in matrices)
        self.shape_out = tuple(int(m.shape[0]) for m in matrices)
        self.dtype, self.device = matrices[0].dtype, matrices[0].device
        self._order = min(itertools.permutations(range(3)), key=self._n_products)

    def _apply(self, x: Tensor) -> Tensor:
        for axis in self._order:
            x = _along(axis, self.matrices[axis], x)
        return x

    def _adjoint(self, y: Tensor) -> Tensor:
        for axis in reversed(self._order):
            y = _along(axis, self.matrices[axis].T, y)
        return y

    def _n_products(self, order: tuple[int, ...]) -> int:
        sizes, total = list(self.shape_in), 0
        for axis in order:
            total += math.prod(sizes) * self.shape_out[axis]
            sizes[axis] = self.shape_out[axis]
        return total

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> SeparableOp:
        a, b, c = (moved_to(m, device, dtype) for m in self.matrices)
        return SeparableOp((a, b, c))


def _along(axis: int, matrix: Tensor, x: Tensor) -> Tensor:
    """Multiply `matrix` (m, n) onto one of the last three axes of `x`."""
    if x.is_complex():
        return torch.complex(_along(axis, matrix, x.real), _along(axis, matrix, x.imag))
    if axis == 2:
        return x @ matrix.T
    if axis == 1:
        return torch.matmul(matrix, x)
    flat = x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])
    return torch.matmul(matrix, flat).reshape(*x.shape[:-3], matrix.shape[0], x.shape[-2], x.shape[-1])
