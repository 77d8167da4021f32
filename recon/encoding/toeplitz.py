"""Normal operators of subspace encodings as products in k-space: Toeplitz embedding, or per frequency of the DFT.

A^H W A convolves the coefficients with K x K kernels that do not depend on the coil. Two FFTs per coefficient and coil
take the place of two NUFFTs, however many samples there are. Fessler et al., IEEE TSP 2005;53:3393; in a temporal
subspace: Mani et al., MRM 2015;73:1432.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from mrcore.errors import BadInputError
from mrcore.operators.linop import LinearOp, Shape, real_dtype
from mrcore.operators.nufft import NufftOp
from recon.encoding.operators import PickOp, SubspaceOp

_BLOCK = 16_384  # frequencies mixed at a time, so that they stay in the cache


@final
class KernelNormalOp(LinearOp):
    """x_k -> sum_c S_c* conv(sum_l kernel_kl, S_c x_l) for coefficients (K, X, Y, Z).

    `kernel` (K (K + 1) / 2, PX, PY, PZ) holds the transfer functions of the pairs k <= l in the order of
    `torch.triu_indices` and of `torch.fft`, over the image (P = n) or over twice that (P = 2 n - 1 or more: no wrap).
    It is real where the basis is real; else complex, and pairs k > l are its conjugates. Images are transformed axis by
    axis and only along lines that are not empty, the last axis slab by slab.

    Raises:
        BadInputError: kernels that do not fit the coil maps (C, X, Y, Z).
    """

    complex_in = complex_out = True

    def __init__(self, kernel: Tensor, coil_maps: Tensor) -> None:
        rank = (math.isqrt(8 * len(kernel) + 1) - 1) // 2
        shape = tuple(coil_maps.shape[1:])
        fits = kernel.ndim == 4 and all(p >= n for p, n in zip(kernel.shape[1:], shape, strict=True))
        if not fits or rank * (rank + 1) // 2 != len(kernel) or coil_maps.ndim != 4 or not coil_maps.is_complex():
            raise BadInputError(
                f"expected kernels (K (K + 1) / 2, PX, PY, PZ), none smaller than complex coil maps (C, X, Y, Z), "
                f"got {tuple(kernel.shape)} for {coil_maps.dtype} {tuple(coil_maps.shape)}"
            )
        self.kernel, self.coil_maps = kernel, coil_maps
        self.dtype, self.device = coil_maps.dtype, coil_maps.device
        self.shape_in = self.shape_out = (rank, *shape)
        self._pair = torch.zeros(rank, rank, dtype=torch.int64)
        upper = torch.triu_indices(rank, rank)
        self._pair[upper[0], upper[1]] = self._pair[upper[1], upper[0]] = torch.arange(len(kernel))

    def _apply(self, x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for into, image in zip(out.reshape(-1, *self.shape_in), x.reshape(-1, *self.shape_in), strict=True):
            for sensitivity in self.coil_maps:
                into += sensitivity.conj() * self._convolved(sensitivity * image)
        return out

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._apply(y)

    def _convolved(self, images: Tensor) -> Tensor:
        """Convolve and mix images (K, X, Y, Z)."""
        _, n_x, n_y, n_z = images.shape
        p_x, p_y, p_z = self.kernel.shape[1:]
        spectrum = torch.fft.fft(torch.fft.fft(images, n=p_x, dim=1), n=p_y, dim=2)
        thickness = max(1, _BLOCK // (p_y * p_z))
        for start in range(0, p_x, thickness):
            slab = slice(start, start + thickness)
            mixed = self._mixed(torch.fft.fft(spectrum[:, slab], n=p_z), self.kernel[:, slab])
            spectrum[:, slab] = torch.fft.ifft(mixed)[..., :n_z]
        spectrum = torch.fft.ifft(spectrum, dim=2)[:, :, :n_y]
        convolved: Tensor = torch.fft.ifft(spectrum, dim=1)[:, :n_x]
        return convolved

    def _mixed(self, spectrum: Tensor, kernel: Tensor) -> Tensor:
        """Return sum_l kernel_kl spectrum_l for every k."""
        mixed = torch.empty_like(spectrum)
        for k in range(len(spectrum)):
            for i in range(len(spectrum)):
                factor = kernel[self._pair[k, i]]
                factor = factor.conj() if i < k else factor
                if i == 0:
                    torch.mul(spectrum[0], factor, out=mixed[k])
                else:
                    mixed[k].addcmul_(spectrum[i], factor)
        return mixed

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> KernelNormalOp:
        wanted = (dtype or self.dtype).to_complex()
        kernel = self.kernel.to(device, wanted if self.kernel.is_complex() else real_dtype(wanted))
        return KernelNormalOp(kernel, self.coil_maps.to(device, wanted))


def toeplitz_normal(encoding: SubspaceOp, weights: Tensor) -> KernelNormalOp:
    """Return A^H W A of an encoding through the NUFFT, within its tolerance, for real `weights` (N,).

    Costs K (K + 1) / 2 adjoint NUFFTs of twice the matrix once, and holds as many kernels, real for a real basis:
    3.4 GB in single precision for 192^3 and K = 5.

    Raises:
        BadInputError: an encoding that is not through the NUFFT.
    """
    nufft = encoding.fourier
    if not isinstance(nufft, NufftOp):
        raise BadInputError("a Toeplitz operator is for encodings through the NUFFT; others have `cartesian_normal`")
    shape = nufft.shape_in
    doubled = tuple(2 * n if n > 1 else 1 for n in shape)
    wide = NufftOp(nufft.k_cyc_per_mm, doubled, nufft.spacing_mm, nufft.dtype, nufft.device, nufft.tolerance)
    scale = math.sqrt(math.prod(doubled)) / math.prod(shape)

    def transfer(products: Tensor) -> Tensor:
        response = scale * wide.H(products)
        for axis, n in enumerate(doubled):
            if n > 1:
                response.select(axis, 0).zero_()  # displacement -n, which no two voxels have: keeps kernels Hermitian
        spectrum: Tensor = torch.fft.fftn(torch.fft.ifftshift(response))
        return spectrum

    return _kernel_normal(encoding, weights, doubled, transfer)


def cartesian_normal(encoding: SubspaceOp, pick: PickOp, weights: Tensor) -> KernelNormalOp:
    """Return A^H W A of an encoding whose samples are those that `pick` takes of centred k-space: exact, not padded."""
    return _kernel_normal(encoding, weights, pick.shape_in, lambda products: torch.fft.ifftshift(pick.H(products)))


def _kernel_normal(
    encoding: SubspaceOp, weights: Tensor, padded: Shape, transfer: Callable[[Tensor], Tensor]
) -> KernelNormalOp:
    """Return the operator whose kernels are the `transfer` functions of the products w V_k* V_l (N,)."""
    basis, frame = encoding.basis, encoding.frame
    pairs = torch.triu_indices(basis.shape[1], basis.shape[1]).T.tolist()
    kernel = torch.empty((len(pairs), *padded), dtype=basis.dtype, device=encoding.device)
    for number, (k, i) in enumerate(pairs):
        by_frame = (basis[:, k].conj() * basis[:, i]).to(encoding.dtype)
        spectrum = transfer(weights * by_frame[frame])
        kernel[number] = spectrum if basis.is_complex() else spectrum.real
    return KernelNormalOp(kernel, encoding.coil_maps)
