"""Operator that is a sparse matrix: fast where most of a volume is background."""

from __future__ import annotations

import math
from typing import final

import torch
from scipy.sparse import csr_array
from torch import Tensor

from mrcore.errors import BadInputError
from mrcore.operators.linop import LinearOp, Shape


@final
class SparseOp(LinearOp):
    """A real sparse `matrix` (n_out, n_in) between flattened data of `shape_in` and `shape_out`, on the CPU.

    Raises:
        BadInputError: a matrix that does not fit the shapes, or a device other than the CPU.
    """

    def __init__(self, matrix: csr_array, shape_in: Shape, shape_out: Shape) -> None:
        if matrix.shape != (math.prod(shape_out), math.prod(shape_in)):
            raise BadInputError(f"a matrix of {matrix.shape} does not take {shape_in} to {shape_out}")
        self.matrix = matrix
        self.shape_in, self.shape_out = tuple(shape_in), tuple(shape_out)
        self.dtype, self.device = torch.from_numpy(matrix.data[:0]).dtype, torch.device("cpu")

    def _apply(self, x: Tensor) -> Tensor:
        return _product(self.matrix, x, self.shape_in, self.shape_out)

    def _adjoint(self, y: Tensor) -> Tensor:
        return _product(self.matrix.T, y, self.shape_out, self.shape_in)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> SparseOp:
        if torch.device(device).type != "cpu":
            raise BadInputError(f"a SparseOp works on the CPU, not on {device}; there, use the operator it was made of")
        kind = torch.empty(0, dtype=(dtype or self.dtype).to_real()).numpy().dtype
        return SparseOp(self.matrix.astype(kind), self.shape_in, self.shape_out)


def _product(matrix: csr_array, x: Tensor, shape_in: Shape, shape_out: Shape) -> Tensor:
    batch = x.shape[: x.ndim - len(shape_in)]
    columns = x.detach().reshape(math.prod(batch), -1).numpy()
    out = torch.stack([torch.from_numpy(matrix @ column) for column in columns])
    return out.reshape(*batch, *shape_out)
