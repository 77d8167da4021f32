"""Elementary operators: Fourier, crop, permutation, diagonal, coils, per-axis (Kronecker) products."""

from __future__ import annotations

import itertools
import math
from types import EllipsisType
from typing import final

import torch
from torch import Tensor

from mrcore.errors import BadInputError
from mrcore.linop import LinearOp, Shape, real_dtype, same_device

CPU = torch.device("cpu")


@final
class FourierOp(LinearOp):
    """Centred orthonormal DFT over the last `n_axes` axes of `shape` (None: all); voxel `n // 2` is both origins.

    Coil images (C, X, Y, Z) become the k-space of each coil with `n_axes` 3.
    """

    complex_in = complex_out = True

    def __init__(
        self,
        shape: Shape,
        dtype: torch.dtype = torch.complex64,
        device: torch.device | str = CPU,
        n_axes: int | None = None,
    ) -> None:
        n_axes = len(shape) if n_axes is None else n_axes
        if not 1 <= n_axes <= len(shape):
            raise BadInputError(f"n_axes must be between 1 and the {len(shape)} axes of {tuple(shape)}, got {n_axes}")
        self.shape_in = self.shape_out = tuple(shape)
        self.dtype, self.device = dtype.to_complex(), torch.device(device)
        self._axes = tuple(range(-n_axes, 0))

    def _apply(self, x: Tensor) -> Tensor:
        shifted = torch.fft.ifftshift(x, dim=self._axes)
        k_space: Tensor = torch.fft.fftshift(torch.fft.fftn(shifted, dim=self._axes, norm="ortho"), dim=self._axes)
        return k_space

    def _adjoint(self, y: Tensor) -> Tensor:
        shifted = torch.fft.ifftshift(y, dim=self._axes)
        image: Tensor = torch.fft.fftshift(torch.fft.ifftn(shifted, dim=self._axes, norm="ortho"), dim=self._axes)
        return image

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> FourierOp:
        return FourierOp(self.shape_in, dtype or self.dtype, device, len(self._axes))


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


@final
class DiagonalOp(LinearOp):
    """Pointwise product with `weight`, whose shape is that of the domain; complex weights need complex data."""

    def __init__(self, weight: Tensor) -> None:
        _require_constant(weight, "the weight of a diagonal operator")
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
        return DiagonalOp(_moved(self.weight, device, dtype))


@final
class CoilOp(LinearOp):
    """One image (X, Y, Z) seen by C coils: product with complex sensitivities (C, X, Y, Z)."""

    complex_in = complex_out = True

    def __init__(self, sensitivity: Tensor) -> None:
        if not sensitivity.is_complex() or sensitivity.ndim < 2:
            raise BadInputError(
                f"coil sensitivities must be complex (C, ...), got {sensitivity.dtype} {tuple(sensitivity.shape)}"
            )
        _require_constant(sensitivity, "a coil sensitivity")
        self.sensitivity = sensitivity
        self.shape_in, self.shape_out = tuple(sensitivity.shape[1:]), tuple(sensitivity.shape)
        self.dtype, self.device = sensitivity.dtype, sensitivity.device

    def _apply(self, x: Tensor) -> Tensor:
        return self.sensitivity * x.unsqueeze(-len(self.shape_in) - 1)

    def _adjoint(self, y: Tensor) -> Tensor:
        return (self.sensitivity.conj() * y).sum(-len(self.shape_in) - 1)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> CoilOp:
        return CoilOp(_moved(self.sensitivity, device, dtype))


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
            _require_constant(m, "a matrix of a separable operator")
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
        a, b, c = (_moved(m, device, dtype) for m in self.matrices)
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


def _permuted(x: Tensor, axes: tuple[int, int, int]) -> Tensor:
    n_batch = x.ndim - 3
    return x.permute(*range(n_batch), *(n_batch + a for a in axes)).contiguous()


def _require_constant(x: Tensor, what: str) -> None:
    if not (x.is_floating_point() or x.is_complex()):
        raise BadInputError(f"{what} must be a floating tensor, got {x.dtype}; convert it first")
    if x.requires_grad:
        raise BadInputError(f"{what} is a constant, no gradient would reach it; pass a detached tensor")


def _moved(x: Tensor, device: torch.device | str, dtype: torch.dtype | None) -> Tensor:
    if dtype is not None:
        dtype = dtype.to_complex() if x.is_complex() else real_dtype(dtype)
    return x.to(device=device, dtype=dtype)
