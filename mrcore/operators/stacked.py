"""Several operators of one object, one below the other."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from mrcore.errors import BadInputError
from mrcore.operators.linop import LinearOp, same_device


@final
class StackedOp(LinearOp):
    """What each of several operators makes of the same x, flattened and joined; the adjoint sums theirs."""

    def __init__(self, operators: tuple[LinearOp, ...]) -> None:
        if not operators:
            raise BadInputError("a stack of operators needs at least one")
        first = operators[0]
        for each in operators:
            if each.shape_in != first.shape_in or (each.complex_in, each.complex_out) != (
                first.complex_in,
                first.complex_out,
            ):
                raise BadInputError(f"stacked operators need one domain and one kind of range, got {operators}")
            if each.dtype != first.dtype or not same_device(each.device, first.device):
                raise BadInputError("stacked operators need one dtype and one device")
        self.operators = operators
        self.complex_in, self.complex_out = first.complex_in, first.complex_out
        self._sizes = [torch.Size(each.shape_out).numel() for each in operators]
        self.shape_in, self.shape_out = first.shape_in, (sum(self._sizes),)
        self.dtype, self.device = first.dtype, first.device

    def _apply(self, x: Tensor) -> Tensor:
        n_batch = x.ndim - len(self.shape_in)
        return torch.cat([each._apply(x).flatten(n_batch) for each in self.operators], -1)

    def _adjoint(self, y: Tensor) -> Tensor:
        parts = torch.split(y, self._sizes, -1)
        batch = y.shape[:-1]
        first, *others = (
            each._adjoint(part.reshape(*batch, *each.shape_out))
            for each, part in zip(self.operators, parts, strict=True)
        )
        for other in others:
            first = first + other
        return first

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> StackedOp:
        return StackedOp(tuple(each.to(device, dtype) for each in self.operators))
