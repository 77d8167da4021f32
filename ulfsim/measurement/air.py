"""Voxels of air around an object that hold noise and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.noise_estimate import NoiseEstimate, background_noise

COMPLEX_BACKGROUND = "complex background"


@dataclass(frozen=True, eq=False)
class Air:
    """Air voxels (`region`, X, Y, Z, bool), the noise sd per real channel that they show, and a `message` on them.

    `plausible` is False where their magnitudes are not distributed as those of noise are.
    """

    region: Tensor
    sd: float
    n_voxels: int
    message: str
    plausible: bool = True


def air_of(data: Tensor, mask: Tensor, noise: NoiseEstimate | None = None) -> Air | None:
    """Return the air of an image (magnitude or complex) outside `mask`; None where there is none.

    Magnitudes that are not distributed as noise do not count; complex data do, with a word on it: their median is moved
    little by ghosts, and nothing else would tell the noise better.

    Left out are voxels of exactly 0 and whatever lies within two voxels of the mask or of a value above 5 sd, which
    noise hardly reaches. The sd of complex data comes from the median of squares of both channels. `noise` is what
    `background_noise` finds, where that is known.
    """
    magnitude = data.abs()
    noise = noise or background_noise(magnitude, mask)
    if noise is None or not (noise.plausible or data.is_complex()):
        return None
    object_ = mask | (magnitude > 5 * noise.sd)
    near = torch.nn.functional.max_pool3d(object_[None].float(), 5, 1, 2)[0] > 0
    region = ~near & (magnitude > 0)
    if int(region.sum()) < 200:
        return None
    sd, message = noise.sd, noise.message
    if data.is_complex():
        sd = float(torch.view_as_real(data[region]).abs().median()) / 0.67449
        message = f"noise sd {sd:.4g} from {int(region.sum())} complex voxels of air"
        if not noise.plausible:
            message += "; their magnitudes are not quite those of noise (ghosts, ringing or a filter)"
    return Air(region, sd, int(region.sum()), message, noise.plausible)
