"""Denoisers of volumes `(x, sigma) -> x` that need no training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from skimage.restoration import denoise_tv_chambolle
from torch import Tensor

from mrcore.denoisers.unet import Denoise

_TV_WEIGHT = 0.7  # times sigma: about the best on brains with noise of 3 to 10 %


def tv_denoiser(weight: float = _TV_WEIGHT, n_iter: int = 100) -> Denoise:
    """Return total variation with `weight` times sigma, which needs no training. Chambolle, JMIV 2004;20:89."""
    return _on_arrays(lambda image, sigma: denoise_tv_chambolle(image, weight=weight * sigma, max_num_iter=n_iter))


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
