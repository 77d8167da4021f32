"""LinearOp: linear operators whose adjoint is their autograd backward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from torch import Tensor

from mrcore.errors import BadInputError

Shape = tuple[int, ...]


class LinearOp(ABC):
    """A linear map from tensors (..., *shape_in) to tensors (..., *shape_out); leading axes are batch.

    Subclasses are final and give `_apply` and `_adjoint`. Calling the operator checks shape and dtype, and makes
    `_adjoint` the backward pass, so gradients are exact and cost one adjoint. `dtype` is that of the numbers the
    operator holds; data of another precision are refused, never cast. `complex_in` states whether the domain is
    complex (True), real (False) or as the data (None).

    Compose with `a @ b`, `a + b`, `2.0 * a`, `a.H`.
    """

    shape_in: Shape
    shape_out: Shape
    dtype: torch.dtype
    device: torch.device
    complex_in: bool | None = None
    complex_out: bool | None = None

    @abstractmethod
    def _apply(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor: ...

    @abstractmethod
    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        """Return a copy whose numbers live on `device` with the real precision `dtype`."""

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the operator to `x` (..., *shape_in).

        Raises:
            BadInputError: a shape, precision or complexness other than that of the operator's domain.
        """
        _check(x, self.shape_in, self.dtype, self.complex_in, type(self).__name__)
        return _Function.apply(x, self, False)

    @property
    def H(self) -> LinearOp:  # noqa: N802  the field's name for the adjoint
        """The adjoint operator."""
        return _Adjoint(self)

    def __matmul__(self, other: LinearOp) -> LinearOp:
        return _Product(self, other)

    def __add__(self, other: LinearOp) -> LinearOp:
        return _Sum(self, other)

    def __mul__(self, factor: float) -> LinearOp:
        return _Scaled(self, float(factor))

    __rmul__ = __mul__


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the real dtype of the same precision."""
    return dtype.to_real() if dtype.is_complex else dtype


def _check(x: Tensor, shape: Shape, dtype: torch.dtype, is_complex: bool | None, name: str) -> None:
    if tuple(x.shape[x.ndim - len(shape) :]) != shape or x.ndim < len(shape):
        raise BadInputError(f"{name} expects data of shape (..., {', '.join(map(str, shape))}), got {tuple(x.shape)}")
    if real_dtype(x.dtype) != real_dtype(dtype):
        raise BadInputError(f"{name} works in {dtype}, the data are {x.dtype}; convert one of them")
    if is_complex is not None and x.is_complex() != is_complex:
        raise BadInputError(f"{name} expects {'complex' if is_complex else 'real'} data, got {x.dtype}")


class _Function(torch.autograd.Function):
    """Applies an operator; its backward is the adjoint (PyTorch's convention for complex gradients agrees)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, op: LinearOp, adjoint: bool) -> Tensor:  # noqa: ANN401  autograd's own type
        ctx.op, ctx.adjoint = op, adjoint
        return op._adjoint(x) if adjoint else op._apply(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return _Function.apply(grads[0], ctx.op, not ctx.adjoint), None, None


class _Adjoint(LinearOp):
    def __init__(self, op: LinearOp) -> None:
        self.op = op
        self.shape_in, self.shape_out = op.shape_out, op.shape_in
        self.complex_in, self.complex_out = op.complex_out, op.complex_in
        self.dtype, self.device = op.dtype, op.device

    def _apply(self, x: Tensor) -> Tensor:
        return self.op._adjoint(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.op._apply(y)

    @property
    def H(self) -> LinearOp:  # noqa: N802
        return self.op

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> _Adjoint:
        return _Adjoint(self.op.to(device, dtype))


class _Product(LinearOp):
    def __init__(self, outer: LinearOp, inner: LinearOp) -> None:
        if outer.shape_in != inner.shape_out or real_dtype(outer.dtype) != real_dtype(inner.dtype):
            raise BadInputError(
                f"cannot compose: the inner operator gives {inner.shape_out} {inner.dtype}, "
                f"the outer expects {outer.shape_in} {outer.dtype}"
            )
        self.outer, self.inner = outer, inner
        self.shape_in, self.shape_out = inner.shape_in, outer.shape_out
        self.complex_in = inner.complex_in if inner.complex_in is not None else outer.complex_in
        self.complex_out = outer.complex_out if outer.complex_out is not None else inner.complex_out
        self.dtype, self.device = inner.dtype, inner.device

    def _apply(self, x: Tensor) -> Tensor:
        return self.outer._apply(self.inner._apply(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer._adjoint(y))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> _Product:
        return _Product(self.outer.to(device, dtype), self.inner.to(device, dtype))


class _Sum(LinearOp):
    def __init__(self, a: LinearOp, b: LinearOp) -> None:
        if (a.shape_in, a.shape_out) != (b.shape_in, b.shape_out):
            raise BadInputError(
                f"cannot add operators of shapes {a.shape_in} -> {a.shape_out} and {b.shape_in} -> {b.shape_out}"
            )
        self.a, self.b = a, b
        self.shape_in, self.shape_out = a.shape_in, a.shape_out
        self.complex_in, self.complex_out = a.complex_in, a.complex_out
        self.dtype, self.device = a.dtype, a.device

    def _apply(self, x: Tensor) -> Tensor:
        return self.a._apply(x) + self.b._apply(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.a._adjoint(y) + self.b._adjoint(y)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> _Sum:
        return _Sum(self.a.to(device, dtype), self.b.to(device, dtype))


class _Scaled(LinearOp):
    def __init__(self, op: LinearOp, factor: float) -> None:
        self.op, self.factor = op, factor
        self.shape_in, self.shape_out = op.shape_in, op.shape_out
        self.complex_in, self.complex_out = op.complex_in, op.complex_out
        self.dtype, self.device = op.dtype, op.device

    def _apply(self, x: Tensor) -> Tensor:
        return self.factor * self.op._apply(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.factor * self.op._adjoint(y)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> _Scaled:
        return _Scaled(self.op.to(device, dtype), self.factor)
