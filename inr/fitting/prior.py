"""Priors of a fit: a denoiser, pretrained on ordinary images, plugged into the solution through the forward model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from inr.scans.single import Data, noise_on_lattice
from mrcore.denoisers.unet import Denoise, geometric
from mrcore.errors import BadInputError
from mrcore.solvers import conjugate_gradient


@dataclass(frozen=True, eq=False)
class Pull:
    """What a prior makes of data: images (C, X, Y, Z) to `start` from, and weight / 2 |images - target|^2."""

    start: Tensor
    target: Tensor
    weight: float


class Prior(Protocol):
    """What is known of images before the scan."""

    def pull(self, data: Data, images: Tensor, foreground: Tensor) -> Pull:
        """Return where the prior leads from `images` (C, X, Y, Z), 0 outside the `foreground` (bool)."""


@dataclass(frozen=True)
class SplittingSettings:
    """Rounds of half-quadratic splitting; noise levels are relative to WM = 1.

    The level falls geometrically from `first_sigma` to `last_sigma`; `strength` / sigma^2 weighs the distance to the
    denoised image against the data. Where the scans leave more noise in a voxel of the lattice than `quiet_sd` (see
    `inr.scans.single.noise_on_lattice`), the strength falls as its root: of one scan at WM SNR 10 the full strength
    blurs edges (their F1 .57, against .70 at half of it), at SNR 50 half of it leaves noise. `n_cg` steps solve for the
    image of a round.

    Raises:
        BadInputError: levels that rise, or numbers that are not positive.
    """

    n_rounds: int = 10
    first_sigma: float = 0.15
    last_sigma: float = 0.045
    strength: float = 0.2
    quiet_sd: float = 0.12
    n_cg: int = 6

    def __post_init__(self) -> None:
        if not 0 < self.last_sigma <= self.first_sigma or min(self.strength, self.quiet_sd) <= 0:
            raise BadInputError(f"splitting needs falling positive levels, a strength and a quiet_sd, got {self}")
        if min(self.n_rounds, self.n_cg) < 1:
            raise BadInputError(f"splitting needs at least one round and one step, got {self}")

    @property
    def sigmas(self) -> tuple[float, ...]:
        """The noise level of each round."""
        return geometric(self.first_sigma, self.last_sigma, self.n_rounds)

    def strength_at(self, noise_sd: float) -> float:
        """Return the strength for scans that leave `noise_sd` in a voxel of the lattice."""
        return self.strength * math.sqrt(min(1.0, self.quiet_sd / noise_sd))


@dataclass(frozen=True, eq=False)
class PlugAndPlay:
    """A denoiser as prior, by half-quadratic splitting (Zhang et al., IEEE TPAMI 2022;44:6360, section 4).

    In turn the images are denoised, and solved for by conjugate gradients: least squares of the scans plus
    strength / (2 sigma^2) |x - denoised|^2. The data are never left: the denoiser only decides what they leave open.
    """

    denoise: Denoise
    settings: SplittingSettings = field(default_factory=SplittingSettings)

    def pull(self, data: Data, images: Tensor, foreground: Tensor) -> Pull:
        """Return the images of the last round as start, their denoised ones as target."""
        rhs = data.right_hand_side()
        target, weight = images, 0.0
        noise = noise_on_lattice(data, foreground)
        strength = self.settings.strength_at(sum(noise) / len(noise))
        rounds = tqdm(self.settings.sigmas, desc="plug and play", disable=None, leave=False)
        for number, sigma in enumerate(rounds):
            weight = strength / sigma**2
            target = torch.stack([self._denoised(image, sigma, number) for image in images]) * foreground
            images = self._solved(data, rhs, target, weight) * foreground
        return Pull(images, target, weight)

    def _denoised(self, image: Tensor, sigma: float, number: int) -> Tensor:
        # A net is not quite mirror-symmetric: over eight rounds each of the mirror images is seen once.
        axes = [axis for axis in range(3) if number >> axis & 1]
        return self.denoise(image.flip(axes), sigma).flip(axes)

    def _solved(self, data: Data, rhs: Tensor, target: Tensor, weight: float) -> Tensor:
        def normal(images: Tensor) -> Tensor:
            return data.normal(images).add_(images, alpha=weight)

        return conjugate_gradient(normal, rhs + weight * target, target, self.settings.n_cg, tolerance=1e-4).x
