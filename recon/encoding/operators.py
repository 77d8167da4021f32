"""Operators from subspace coefficients to samples of all frames and coils, and their fused normal operator."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from mrcore.errors import BadInputError
from mrcore.operators.linop import LinearOp, Shape, real_dtype

CPU = torch.device("cpu")


@final
class PickOp(LinearOp):
    """Values of an array of `shape` at flat `index` (N,), some perhaps more than once; the adjoint adds them up."""

    def __init__(
        self, shape: Shape, index: Tensor, dtype: torch.dtype = torch.complex64, device: torch.device | str = CPU
    ) -> None:
        n = math.prod(shape)
        if index.ndim != 1 or index.dtype != torch.int64 or len(index) == 0 or int(index.min()) < 0:
            raise BadInputError(f"expected a row of int64 indices from 0, got {index.dtype} {tuple(index.shape)}")
        if int(index.max()) >= n:
            raise BadInputError(f"indices into {n} values must stay below that, got {int(index.max())}")
        self.shape_in, self.shape_out = tuple(shape), tuple(index.shape)
        self.dtype, self.device = dtype, torch.device(device)
        self.index = index.to(device)

    def _apply(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[: x.ndim - len(self.shape_in)], -1)[..., self.index]

    def _adjoint(self, y: Tensor) -> Tensor:
        flat = y.new_zeros((*y.shape[:-1], math.prod(self.shape_in)))
        return flat.index_add_(-1, self.index, y).reshape(*y.shape[:-1], *self.shape_in)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> PickOp:
        return PickOp(self.shape_in, self.index, dtype or self.dtype, device)


@final
class SubspaceOp(LinearOp):
    """Coefficients (K, X, Y, Z) to the samples (C, N) of all coils: y_c(n) = sum_k V[frame(n), k] (F S_c x_k)(n).

    `fourier` takes an image (X, Y, Z) to its N samples, `basis` V is (frames, K), real or complex, `coil_maps` S are
    (C, X, Y, Z). The adjoint is x_k = sum_c S_c* F^H (V[frame, k]* y_c). One coil is held at a time.
    McGivney et al., IEEE TMI 2014;33:2311; Assländer et al., MRM 2018;79:83.

    Raises:
        BadInputError: parts that do not fit.
    """

    complex_in = complex_out = True

    def __init__(self, fourier: LinearOp, basis: Tensor, frame: Tensor, coil_maps: Tensor) -> None:
        if coil_maps.ndim != 4 or tuple(coil_maps.shape[1:]) != fourier.shape_in or not coil_maps.is_complex():
            raise BadInputError(
                f"coil maps must be complex (C, {', '.join(map(str, fourier.shape_in))}), got {coil_maps.dtype} "
                f"{tuple(coil_maps.shape)}"
            )
        if frame.shape != fourier.shape_out or int(frame.max()) >= len(basis):
            raise BadInputError(
                f"expected a frame below {len(basis)} for each of the {fourier.shape_out[0]} samples, got "
                f"{tuple(frame.shape)} up to {int(frame.max())}"
            )
        self.fourier = fourier
        self.dtype, self.device = fourier.dtype, fourier.device
        self.coil_maps = coil_maps.to(self.device, self.dtype)
        self.basis = basis.to(self.device, self.dtype if basis.is_complex() else real_dtype(self.dtype))
        self.frame = frame.to(self.device)
        self.shape_in = (basis.shape[1], *fourier.shape_in)
        self.shape_out = (len(coil_maps), *fourier.shape_out)

    def _apply(self, x: Tensor) -> Tensor:
        y = x.new_empty((*x.shape[:-4], *self.shape_out))
        for c in range(len(self.coil_maps)):
            y[..., c, :] = self.samples_of_coil(x, c)
        return y

    def _adjoint(self, y: Tensor) -> Tensor:
        x = y.new_zeros((*y.shape[:-2], *self.shape_in))
        for c in range(len(self.coil_maps)):
            x += self.images_of_coil(y[..., c, :], c)
        return x

    def samples_of_coil(self, x: Tensor, coil: int) -> Tensor:
        """Return the samples (..., N) that one coil takes of the coefficients (..., K, X, Y, Z)."""
        seen = self.fourier._apply(self.coil_maps[coil] * x)
        y = seen[..., 0, :] * self.basis[self.frame, 0]
        for k in range(1, self.shape_in[0]):
            y += seen[..., k, :] * self.basis[self.frame, k]
        return y

    def images_of_coil(self, y: Tensor, coil: int) -> Tensor:
        """Return what the samples (..., N) of one coil add to the coefficients: the adjoint of `samples_of_coil`."""
        weighted = torch.stack([y * self.basis[self.frame, k].conj() for k in range(self.shape_in[0])], -2)
        return self.coil_maps[coil].conj() * self.fourier._adjoint(weighted)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> SubspaceOp:
        return SubspaceOp(self.fourier.to(device, dtype), self.basis, self.frame, self.coil_maps)


@final
class FusedNormalOp(LinearOp):
    """A^H W A of a `SubspaceOp` A with real `weights` W (N,), coil by coil, so that (C, N) is never held."""

    complex_in = complex_out = True

    def __init__(self, encoding: SubspaceOp, weights: Tensor) -> None:
        if tuple(weights.shape) != encoding.shape_out[1:] or weights.is_complex():
            raise BadInputError(f"expected {encoding.shape_out[1]} real weights, got {tuple(weights.shape)}")
        self.encoding = encoding
        self.dtype, self.device = encoding.dtype, encoding.device
        self.weights = weights.to(self.device, real_dtype(self.dtype))
        self.shape_in = self.shape_out = encoding.shape_in

    def _apply(self, x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for c in range(self.encoding.shape_out[0]):
            out += self.encoding.images_of_coil(self.weights * self.encoding.samples_of_coil(x, c), c)
        return out

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._apply(y)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> FusedNormalOp:
        return FusedNormalOp(self.encoding.to(device, dtype), self.weights)
