"""Elementary operators: Fourier, crop, diagonal, coils, per-axis (Kronecker) products."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from mrcore.errors import BadInputError
from mrcore.linop import LinearOp, Shape

CPU = torch.device("cpu")


@final
class FourierOp(LinearOp):
    """Centred orthonormal DFT over all axes of `shape`; voxel `n // 2` is the origin in both domains."""

    complex_in = complex_out = True

    def __init__(self, shape: Shape, dtype: torch.dtype = torch.complex64, device: torch.device | str = CPU) -> None:
        self.shape_in = self.shape_out = tuple(shape)
        self.dtype, self.device = dtype, torch.device(device)
        self._axes = tuple(range(-len(shape), 0))

    def _apply(self, x: Tensor) -> Tensor:
        shifted = torch.fft.ifftshift(x, dim=self._axes)
        return torch.fft.fftshift(torch.fft.fftn(shifted, dim=self._axes, norm="ortho"), dim=self._axes)

    def _adjoint(self, y: Tensor) -> Tensor:
        shifted = torch.fft.ifftshift(y, dim=self._axes)
        return torch.fft.fftshift(torch.fft.ifftn(shifted, dim=self._axes, norm="ortho"), dim=self._axes)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> FourierOp:
        return FourierOp(self.shape_in, dtype.to_complex() if dtype else self.dtype, device)


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
        self._window = (..., *(slice(s, s + o) for s, o in zip(starts, shape_out, strict=True)))

    def _apply(self, x: Tensor) -> Tensor:
        return x[self._window].clone()

    def _adjoint(self, y: Tensor) -> Tensor:
        out = y.new_zeros((*y.shape[: y.ndim - len(self.shape_in)], *self.shape_in))
        out[self._window] = y
        return out

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> CropOp:
        return CropOp(self.shape_in, self.shape_out, dtype or self.dtype, device)


@final
class DiagonalOp(LinearOp):
    """Pointwise product with `weight`, whose shape is that of the domain; complex weights need complex data."""

    def __init__(self, weight: Tensor) -> None:
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
    """Kronecker product of three real matrices `(m_a, n_a)`, one per axis: (..., n_0, n_1, n_2) -> (..., m_0, m_1, m_2).

    Applied as three small matrix products, last axis first; the adjoint uses the transposes.
    """

    def __init__(self, matrices: tuple[Tensor, Tensor, Tensor]) -> None:
        if len(matrices) != 3 or any(m.ndim != 2 or m.is_complex() for m in matrices):
            raise BadInputError("a separable operator needs three real matrices (n_out, n_in), one per axis")
        self.matrices = matrices
        self.shape_in = tuple(int(m.shape[1]) for m in matrices)
        self.shape_out = tuple(int(m.shape[0]) for m in matrices)
        self.dtype, self.device = matrices[0].dtype, matrices[0].device

    def _apply(self, x: Tensor) -> Tensor:
        return _per_axis(self.matrices, x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return _per_axis((self.matrices[0].T, self.matrices[1].T, self.matrices[2].T), y)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> SeparableOp:
        a, b, c = (_moved(m, device, dtype) for m in self.matrices)
        return SeparableOp((a, b, c))


def _per_axis(matrices: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
    if x.is_complex():
        return torch.complex(_per_axis(matrices, x.real), _per_axis(matrices, x.imag))
    first, second, third = matrices
    # The axis that shrinks most goes first: the later products are then smaller.
    if first.shape[0] * third.shape[1] < third.shape[0] * first.shape[1]:
        return torch.matmul(second, _along_first(first, x)) @ third.T
    return _along_first(first, torch.matmul(second, x @ third.T))


def _along_first(matrix: Tensor, x: Tensor) -> Tensor:
    flat = x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])
    return torch.matmul(matrix, flat).reshape(*x.shape[:-3], matrix.shape[0], x.shape[-2], x.shape[-1])


def _moved(x: Tensor, device: torch.device | str, dtype: torch.dtype | None) -> Tensor:
    if dtype is not None:
        dtype = dtype.to_complex() if x.is_complex() else dtype
    return x.to(device=device, dtype=dtype)
