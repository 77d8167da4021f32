"""Priors that pull the images of a fit towards likely ones: plug-and-play denoisers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mrcore.errors import BadInputError
from mrcore.nets import Denoise


@dataclass(frozen=True, eq=False)
class Pull:
    """A term weight / 2 |images - target|^2 of the objective; the fit's own total variation counts `tv_share`."""

    target: Tensor
    weight: float
    tv_share: float = 1.0


class Prior(Protocol):
    """What is known of images before the scan."""

    def pull(self, images: Tensor, step: int, n_steps: int) -> Pull | None:
        """Return where `images` (C, X, Y, Z) are pulled to from this step on; None where that stays as it is."""


@dataclass(frozen=True, eq=False)
class PlugAndPlay:
    """Half-quadratic splitting with a denoiser (Zhang et al., IEEE TPAMI 2022;44:6360).

    At `n_rounds` evenly spaced steps the images are denoised with the noise level sigma, which falls geometrically
    from `first_sigma` to `last_sigma` (relative to WM = 1); they are pulled to the result with the weight
    `strength` / sigma^2. Before the first round, in the first `after` of the steps, total variation alone acts; after
    it counts `tv_share`.
    """

    denoise: Denoise
    first_sigma: float = 0.1
    last_sigma: float = 0.03
    n_rounds: int = 8
    strength: float = 0.2
    after: float = 0.2
    tv_share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.last_sigma <= self.first_sigma or self.n_rounds < 1 or self.strength <= 0:
            raise BadInputError(f"a plug-and-play prior needs falling sigmas, rounds and a strength, got {self}")
        if not 0 <= self.after < 1 or self.tv_share < 0:
            raise BadInputError(f"a plug-and-play prior starts in 0 to 1 of the steps, got {self}")

    def sigma(self, number: int) -> float:
        """Return the noise level of a round."""
        share = number / max(1, self.n_rounds - 1)
        return float(self.first_sigma * (self.last_sigma / self.first_sigma) ** share)

    def pull(self, images: Tensor, step: int, n_steps: int) -> Pull | None:
        """Return the denoised images at the steps of a round, else None."""
        length = (1 - self.after) * n_steps / self.n_rounds
        starts = [round(self.after * n_steps + number * length) for number in range(self.n_rounds)]
        if step not in starts:
            return None
        sigma = self.sigma(starts.index(step))
        target = torch.stack([self.denoise(image, sigma) for image in images.detach()])
        return Pull(target, self.strength / sigma**2, self.tv_share)
