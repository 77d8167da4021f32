"""Conditional diffusion of what the Wiener start lacks: v-prediction, few deterministic steps, one step, ensembles.

The residual r = (truth - start) / scale has about unit sd, and x_t = a_t r + s_t e, with a_t = cos(pi t / 2) and
s_t = sin(pi t / 2), is its noised state at time t (cosine schedule, Nichol & Dhariwal, ICML 2021). The network
predicts the velocity v = a_t e - s_t r (Salimans & Ho, ICLR 2022), from which r = a_t x - s_t v and e = s_t x + a_t v.
A residual of 0 is the start itself, so that sampling from s_T e at T < 1 is sampling from the noised scan, as in SDEdit
(Meng et al., ICLR 2022), and at T = 1 from noise alone.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from iqt.model.unet import FoldedUNet, UNetSettings
from iqt.restorer import RESIDUAL_SCALE, brain_weight, conditions_of, wiener_start, without_margin
from mrcore.data.brief import Brief
from mrcore.errors import BadInputError
from mrcore.scan_cubes import ScanCubes


@dataclass(frozen=True, eq=False, repr=False)
class NoisedCubes(Brief):
    """Cubes with the time (B,) and the noise (B, X, Y, Z) of a training step of the diffusion."""

    cubes: ScanCubes
    time: Tensor
    noise: Tensor


class Diffusion(nn.Module):
    """The network of the diffusion; `settings` are completed by what it needs: two images and the time."""

    def __init__(self, settings: UNetSettings) -> None:
        super().__init__()
        self.net = FoldedUNet(replace(settings, n_images=2, timed=True))

    def forward(self, state: Tensor, start: Tensor, conditions: Tensor, time: Tensor) -> Tensor:
        """Predict the velocity (B, X, Y, Z) of `state` at `time` (B,), 0 to 1, given the Wiener `start`."""
        out: Tensor = self.net(torch.stack([state, 2 * start - 1], 1), conditions, time)
        return out.float()


def noised(cubes: ScanCubes, generator: torch.Generator) -> NoisedCubes:
    """Draw time and noise of a training step, in equal strata of time over the batch."""
    n = len(cubes.truth)
    time = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    noise = torch.randn(cubes.truth.shape, generator=generator)
    return NoisedCubes(cubes, time.to(cubes.truth.device), noise.to(cubes.truth.device))


def velocity_loss(model: nn.Module, batch: NoisedCubes) -> Tensor:
    """Return the mean squared error of the velocity, in the brain and a voxel around it; elsewhere it counts little."""
    cubes, lattice_mm = batch.cubes, batch.cubes.lattice_mm
    start = wiener_start(cubes.operator, cubes.scan, cubes.noise_sd, lattice_mm)
    residual = (cubes.truth - start) / RESIDUAL_SCALE
    a, s = _levels(batch.time)
    state = a * residual + s * batch.noise
    velocity = model(state, start, conditions_of(cubes.noise_sd, cubes.voxel_mm), batch.time)
    error = without_margin(velocity - (a * batch.noise - s * residual), lattice_mm)
    weight = without_margin(brain_weight(cubes.brain), lattice_mm)
    return (weight * error.square()).sum() / weight.sum()


def sample(
    model: nn.Module,
    start: Tensor,
    conditions: Tensor,
    noise: Tensor,
    n_steps: int = 4,
    from_time: float = 1.0,
) -> Tensor:
    """Return samples (B, X, Y, Z) of the object by `n_steps` deterministic (DDIM) steps from `noise` at `from_time`.

    One step from time 1 is the posterior mean, for whatever noise. Several from the same noise are one sample, and
    different noises an ensemble. Noise over a whole volume is one field, so that tiles of it fit.

    Raises:
        BadInputError: no step, a time outside 0 to 1, noise of another shape than the start.
    """
    if n_steps < 1 or not 0 < from_time <= 1 or noise.shape != start.shape:
        raise BadInputError(
            f"sampling needs a step at least, a time above 0 up to 1, and noise of the start's shape "
            f"{tuple(start.shape)}; got {n_steps}, {from_time} and {tuple(noise.shape)}"
        )
    times = [from_time * (1 - k / n_steps) for k in range(n_steps + 1)]
    state = math.sin(math.pi / 2 * from_time) * noise
    for now, then in itertools.pairwise(times):
        time = torch.full((len(start),), now, dtype=start.dtype, device=start.device)
        a, s = _levels(time)
        velocity = model(state, start, conditions, time)
        residual, remaining = a * state - s * velocity, s * state + a * velocity
        a, s = _levels(torch.full_like(time, then))
        state = a * residual + s * remaining
    return start + RESIDUAL_SCALE * state


def _levels(time: Tensor) -> tuple[Tensor, Tensor]:
    """Return the levels of signal and noise at `time` (B,), for images (B, X, Y, Z)."""
    angle = (math.pi / 2 * time).reshape(-1, 1, 1, 1)
    return angle.cos(), angle.sin()
