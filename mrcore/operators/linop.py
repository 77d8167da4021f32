"""LinearOp: linear operators whose adjoint is their autograd backward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self, final

import torch
from torch import Tensor

from mrcore.errors import BadInputError

Shape = tuple[int, ...]
CPU = torch.device("cpu")


class LinearOp(ABC):
    """A linear map from tensors (..., *shape_in) to tensors (..., *shape_out); leading axes are batch.

    Subclasses are final and give `_apply` and `_adjoint`. Calling the operator checks shape and dtype, and makes
    `_adjoint` the backward pass, so gradients are exact and cost one adjoint. `dtype` is that of the numbers the
    operator holds; data of another precision or device are refused, never cast. `complex_in` and `complex_out` state
    whether domain and range are complex (True), real (False) or follow the data (None, always both together).
    The numbers of an operator are constants: gradients flow to the data only.

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
        """Return a copy on `device`, in the precision of `dtype` (None keeps it); complex operators stay complex."""

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the operator to `x` (..., *shape_in).

        Raises:
            BadInputError: a shape, precision, complexness or device other than that of the operator's domain.
        """
        _check(x, self)
        return _Function.apply(x, self, False)

    def __repr__(self) -> str:
        sizes = (" x ".join(map(str, shape)) for shape in (self.shape_in, self.shape_out))
        name = type(self).__name__.lstrip("_")
        return f"{name}({' to '.join(sizes)}, {str(self.dtype).removeprefix('torch.')} on {self.device})"

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


def same_device(a: torch.device, b: torch.device) -> bool:
    """Whether two devices are the same; `cuda` without a number stands for any."""
    return a.type == b.type and (a.index is None or b.index is None or a.index == b.index)


def _check(x: Tensor, op: LinearOp) -> None:
    name, shape = type(op).__name__.lstrip("_"), op.shape_in
    if tuple(x.shape[x.ndim - len(shape) :]) != shape or x.ndim < len(shape):
        raise BadInputError(f"{name} expects data of shape (..., {', '.join(map(str, shape))}), got {tuple(x.shape)}")
    if real_dtype(x.dtype) != real_dtype(op.dtype):
        raise BadInputError(f"{name} works in {op.dtype}, the data are {x.dtype}; convert one of them with `.to`")
    if op.complex_in is not None and x.is_complex() != op.complex_in:
        raise BadInputError(f"{name} expects {_kind(op.complex_in)} data, got {x.dtype}; convert them first")
    if not same_device(x.device, op.device):
        raise BadInputError(f"{name} is on {op.device}, the data are on {x.device}; move one of them with `.to`")


def _check_partners(a: LinearOp, b: LinearOp, verb: str) -> None:
    """Refuse to combine operators that would mix precisions or devices."""
    if real_dtype(a.dtype) != real_dtype(b.dtype):
        raise BadInputError(f"cannot {verb} operators of {a.dtype} and {b.dtype}; convert one of them with `.to`")
    if not same_device(a.device, b.device):
        raise BadInputError(f"cannot {verb} operators on {a.device} and {b.device}; move one of them with `.to`")


def _agreed(a: bool | None, b: bool | None, where: str) -> bool | None:
    """Return what both sides say about complexness; None gives way to the other."""
    if a is not None and b is not None and a != b:
        raise BadInputError(f"{where}: one side is {_kind(a)}, the other {_kind(b)}")
    return b if a is None else a


def _kind(is_complex: bool) -> str:
    return "complex" if is_complex else "real"


class _Function(torch.autograd.Function):
    """Applies an operator; its backward is the adjoint (PyTorch's convention for complex gradients agrees)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, op: LinearOp, adjoint: bool) -> Tensor:  # noqa: ANN401  autograd's own type
        ctx.op, ctx.adjoint = op, adjoint
        return op._adjoint(x) if adjoint else op._apply(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return _Function.apply(grads[0], ctx.op, not ctx.adjoint), None, None


@final
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


@final
class _Product(LinearOp):
    def __init__(self, outer: LinearOp, inner: LinearOp) -> None:
        if outer.shape_in != inner.shape_out:
            raise BadInputError(
                f"cannot compose: the inner operator gives {inner.shape_out}, the outer expects {outer.shape_in}"
            )
        _check_partners(outer, inner, "compose")
        between = _agreed(outer.complex_in, inner.complex_out, "cannot compose: outer takes, inner gives")
        self.outer, self.inner = outer, inner
        self.shape_in, self.shape_out = inner.shape_in, outer.shape_out
        # An operator that follows its data passes on what its neighbour demands.
        self.complex_in = between if inner.complex_in is None else inner.complex_in
        self.complex_out = between if outer.complex_out is None else outer.complex_out
        self.dtype, self.device = inner.dtype, inner.device

    def _apply(self, x: Tensor) -> Tensor:
        return self.outer._apply(self.inner._apply(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer._adjoint(y))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> _Product:
        return _Product(self.outer.to(device, dtype), self.inner.to(device, dtype))


@final
class _Sum(LinearOp):
    def __init__(self, a: LinearOp, b: LinearOp) -> None:
        if (a.shape_in, a.shape_out) != (b.shape_in, b.shape_out):
            raise BadInputError(
                f"cannot add operators of shapes {a.shape_in} -> {a.shape_out} and {b.shape_in} -> {b.shape_out}"
            )
        _check_partners(a, b, "add")
        self.a, self.b = a, b
        self.shape_in, self.shape_out = a.shape_in, a.shape_out
        self.complex_in = _agreed(a.complex_in, b.complex_in, "cannot add operators of different domains")
        self.complex_out = _agreed(a.complex_out, b.complex_out, "cannot add operators of different ranges")
        self.dtype, self.device = a.dtype, a.device

    def _apply(self, x: Tensor) -> Tensor:
        return self.a._apply(x) + self.b._apply(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.a._adjoint(y) + self.b._adjoint(y)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> _Sum:
        return _Sum(self.a.to(device, dtype), self.b.to(device, dtype))


@final
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


def require_constant(x: Tensor, what: str) -> None:
    """Raise BadInputError unless `x`, which `what` names, can be the constant of an operator."""
    if not (x.is_floating_point() or x.is_complex()):
        raise BadInputError(f"{what} must be a floating tensor, got {x.dtype}; convert it first")
    if x.requires_grad:
        raise BadInputError(f"{what} is a constant, no gradient would reach it; pass a detached tensor")


def moved_to(x: Tensor, device: torch.device | str, dtype: torch.dtype | None) -> Tensor:
    """Return `x` on `device` in the precision of `dtype` (None keeps it), complex where it was."""
    if dtype is not None:
        dtype = dtype.to_complex() if x.is_complex() else real_dtype(dtype)
    return x.to(device=device, dtype=dtype)
