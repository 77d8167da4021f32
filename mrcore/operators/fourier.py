"""The centred orthonormal Fourier transform."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from mrcore.errors import BadInputError
from mrcore.operators.linop import CPU, LinearOp, Shape


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
