"""Voxel baselines through the same operator: interpolation, Tikhonov by conjugate gradients, Huber total variation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from inr.losses import data_term, total_variation
from mrcore.data.grid import Grid, Triple
from mrcore.data.volume import Volume
from mrcore.operators.linop import LinearOp
from mrcore.solvers import Solution, conjugate_gradient
from mrcore.spatial.resampling import resample

GRADIENT_SD = 0.2
"""Assumed sd of the image gradient per mm, relative to WM = 1; with the noise it sets the weight of Tikhonov."""


def trilinear(scan: Volume, lattice: Grid) -> Volume:
    """Interpolate the scan linearly."""
    return resample(scan, lattice, order=1)


def cubic(scan: Volume, lattice: Grid) -> Volume:
    """Interpolate the scan with cubic splines; what undershoots below 0 is set to 0."""
    out = resample(scan, lattice, order=3)
    return Volume(out.data.clamp_min(0), lattice, scan.meta)


def tikhonov(
    operator: LinearOp, scan: Tensor, noise_sd: float, start: Tensor, spacing_mm: Triple, max_iter: int = 15
) -> Solution:
    """Minimise |A x - y|^2 / (2 sd^2) + |grad x|^2 / (2 GRADIENT_SD^2) by conjugate gradients, with WM = 1."""
    weight = (noise_sd / GRADIENT_SD) ** 2 * math.prod(spacing_mm)

    def normal(x: Tensor) -> Tensor:
        return add_gradient_normal(operator.H(operator(x)), x, weight, spacing_mm)

    return conjugate_gradient(normal, operator.H(scan), start, max_iter, tolerance=1e-3)


def add_gradient_normal(out: Tensor, x: Tensor, weight: float, spacing_mm: Triple) -> Tensor:
    """Add weight * D^T D x to `out` (X, Y, Z) in place, D the forward differences per mm, and return it."""
    for axis, spacing in enumerate(spacing_mm):
        step = torch.diff(x, dim=axis) * (weight / spacing**2)
        n = step.shape[axis]
        out.narrow(axis, 0, n).sub_(step)
        out.narrow(axis, 1, n).add_(step)
    return out


@dataclass(frozen=True)
class TvSettings:
    """Huber-TV: `weight` (per mm^2, intensities with WM = 1), `smoothing` (per mm), Adam steps and rate."""

    weight: float = 1.5
    smoothing: float = 0.01
    n_steps: int = 80
    learning_rate: float = 0.03


def huber_tv(
    operator: LinearOp,
    scan: Tensor,
    noise_sd: float,
    start: Tensor,
    spacing_mm: Triple,
    settings: TvSettings | None = None,
) -> Solution:
    """Minimise the Rician data term plus Huber-TV over voxels by Adam with cosine decay, from `start`."""
    chosen = settings or TvSettings()

    def objective(image: Tensor) -> Tensor:
        variation = total_variation(image, spacing_mm, chosen.smoothing)
        return data_term(operator, image, scan, noise_sd) + chosen.weight * variation

    return descended(objective, start, scan.numel(), chosen.n_steps, chosen.learning_rate, "Huber-TV")


def descended(
    objective: Callable[[Tensor], Tensor], start: Tensor, n_values: int, n_steps: int, learning_rate: float, name: str
) -> Solution:
    """Minimise `objective` of images (..., X, Y, Z) over voxels by Adam with cosine decay, from `start`.

    Images are clamped to 0 at the end; the history is the objective for each of `n_values` data.
    """
    image = start.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([image], learning_rate)
    history = []
    for step in tqdm(range(n_steps), desc=name, disable=None, leave=False):
        optimiser.param_groups[0]["lr"] = learning_rate * cosine(step, n_steps)
        optimiser.zero_grad()
        loss = objective(image)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        history.append(loss.item() / n_values)
    return ended(image.detach().clamp_min(0), history)


def cosine(step: int, n_steps: int) -> float:
    """Return the factor of the learning rate at `step`: half a cosine from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * step / n_steps))


def ended(image: Tensor, history: list[float], tolerance: float = 0.01) -> Solution:
    """Return the result of a descent; converged if the objective fell by less than `tolerance` in the last tenth."""
    n = max(1, len(history) // 10)
    change = abs(history[-1 - n] - history[-1]) / max(abs(history[-1]), 1e-12) if len(history) > n else math.inf
    done = change < tolerance
    message = f"objective changed by {100 * change:.2g} % over the last {n} of {len(history)} steps"
    return Solution(image, done, len(history), tuple(history), message)
