"""Denoisers of volumes `(x, sigma) -> x` by networks over slices or volumes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mrcore.denoisers.files import Denoiser
from mrcore.denoisers.unet import Denoise, denoise, denoise_slices
from mrcore.errors import BadInputError


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
