"""Denoisers of volumes `(x, sigma) -> x`: trained nets over slices or volumes, classical ones, and those of deepinv."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch
from skimage.restoration import denoise_tv_chambolle, denoise_wavelet
from torch import Tensor

from mrcore.errors import BadInputError, MissingExtraError
from mrcore.nets import Denoise, denoise, denoise_slices
from mrcore.nets_files import Denoiser

_TV_WEIGHT = 0.7  # times sigma: about the best on brains with noise of 3 to 10 %


def sliced_denoiser(net: Denoiser, axes: tuple[int, ...] = (0, 1, 2)) -> Denoise:
    """Return a denoiser of images (X, Y, Z) by a 2-D net: the mean over slices across each of `axes`.

    A single slice (Z = 1) is worked on as it is. Thick slices have one axis that serves, mostly 2.

    Raises:
        BadInputError: a net that is not 2-D, or no axes.
    """
    if net.net.settings.n_dims != 2 or not axes:
        raise BadInputError(f"slices need a 2-D net and an axis, got a {net.net.settings.n_dims}-D net and {axes}")

    def sliced(image: Tensor, sigma: float) -> Tensor:
        if image.ndim != 3:
            raise BadInputError(f"the image must be (X, Y, Z), with Z = 1 for one slice, got {tuple(image.shape)}")
        flat = [axis for axis in range(3) if image.shape[axis] == 1]
        return denoise_slices(net.net, image, sigma, (flat[-1],) if flat else axes)

    return sliced


def volume_denoiser(net: Denoiser) -> Denoise:
    """Return a denoiser of images (X, Y, Z) by a 3-D net.

    Raises:
        BadInputError: a net that is not 3-D.
    """
    if net.net.settings.n_dims != 3:
        raise BadInputError(f"volumes need a 3-D net, got one of {net.net.settings.n_dims} dimensions")
    return lambda image, sigma: denoise(net.net, image, sigma)


def tv_denoiser(weight: float = _TV_WEIGHT, n_iter: int = 100) -> Denoise:
    """Return total variation with `weight` times sigma, which needs no training. Chambolle, JMIV 2004;20:89."""
    return _on_arrays(lambda image, sigma: denoise_tv_chambolle(image, weight=weight * sigma, max_num_iter=n_iter))


def wavelet_denoiser() -> Denoise:
    """Return soft thresholding of wavelets by BayesShrink, which needs no training. Chang et al., IEEE TIP 2000;9:1532.

    Raises:
        MissingExtraError: PyWavelets is not installed.
    """
    try:
        import_module("pywt")  # scikit-image needs it only here
    except ImportError as error:
        raise MissingExtraError('wavelets need PyWavelets: pip install "mrkit[wavelet]"') from error
    return _on_arrays(lambda image, sigma: denoise_wavelet(image, sigma=sigma, wavelet="db2", rescale_sigma=False))


def deepinv_denoiser(model: Callable[[Tensor, float], Tensor]) -> Denoise:
    """Return a denoiser by a 2-D one of deepinv for one channel, slice by slice across the last axis.

    `model` takes (B, 1, X, Y) with values of 0 to 1 and the sd of the noise, as the denoisers of `deepinv.models` do.
    """

    def adapted(image: Tensor, sigma: float) -> Tensor:
        scale = float(image.abs().max())
        if scale == 0 or sigma == 0:
            return image.clone()
        with torch.no_grad():
            slices = model(image.movedim(-1, 0)[:, None] / scale, sigma / scale)
        return (slices[:, 0] * scale).movedim(0, -1)

    return adapted


def deepinv_drunet(weights: str = "download") -> Denoise:
    """Return the DRUNet of deepinv for grey images; `weights` is a file, or "download" for those of photographs.

    Raises:
        MissingExtraError: deepinv is not installed.
    """
    try:
        from deepinv.models import DRUNet
    except ImportError as error:
        raise MissingExtraError('this denoiser needs deepinv: pip install "mrkit[deepinv]"') from error
    model: Any = DRUNet(in_channels=1, out_channels=1, pretrained=weights)
    return deepinv_denoiser(model.eval())


def _on_arrays(function: Callable[[Any, float], Any]) -> Denoise:
    """Return the denoiser that hands images of unit scale, without axes of length 1, to a function of arrays."""

    def denoiser(image: Tensor, sigma: float) -> Tensor:
        scale = float(image.abs().max())
        if scale == 0 or sigma == 0:
            return image.clone()
        array = image.detach().cpu().numpy()
        result = function(np.squeeze(array / scale), sigma / scale).reshape(array.shape) * scale
        return torch.as_tensor(result, dtype=image.dtype, device=image.device)

    return denoiser
