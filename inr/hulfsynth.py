"""HULFSynth's super-resolution as published (Indrakanti & Simpson 2025, arXiv:2511.14897), for comparison.

A real Gabor MLP with two maps a unit, over coordinates in -1 to 1, from the initial state of linear layers; fitted
to random points, each compared with the scan voxel in which it lies: there is no point spread. Total variation is
taken over the points of a batch in the order in which they were drawn, neighbours or not. Nothing here is an advice.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from inr.fields.gabor_mlp import TwoMapGaborLayer
from inr.fields.mlp import MlpField, plain_init
from inr.rendering import FittedField, render
from inr.voxels import ended
from mrcore.data.grid import Grid, Triple, to_voxel, to_world
from mrcore.data.volume import TissueMap, Volume, require_same_grid
from mrcore.errors import BadInputError
from mrcore.random import seeded
from mrcore.solvers import Solution


@dataclass(frozen=True)
class HulfSynthField:
    """The published network: `n_layers` x `n_hidden`, w0 `frequency` and s0 `decay` per half a field of view."""

    n_hidden: int = 128
    n_layers: int = 5
    frequency: float = 20.0
    decay: float = 10.0

    def __post_init__(self) -> None:
        if min(self.n_hidden, self.n_layers) < 1 or self.frequency <= 0 or self.decay < 0:
            raise BadInputError(f"HULFSynth needs positive sizes and frequency and a decay >= 0, got {self}")

    def build(self, grid: Grid, n_outputs: int, generator: torch.Generator) -> MlpField:
        """Build the field for the lattice `grid`; unlike others it does not start at zero."""
        widths = [3] + [self.n_hidden] * (self.n_layers - 1)
        layers = [TwoMapGaborLayer(n, self.n_hidden, self.frequency, self.decay, generator) for n in widths]
        half: Triple = (grid.fov_mm[0] / 2, grid.fov_mm[1] / 2, grid.fov_mm[2] / 2)
        out = MlpField(grid, n_outputs, half, layers, self.n_hidden)
        for layer in (*layers, out.head):
            plain_init(layer, generator)
        return out


@dataclass(frozen=True)
class HulfSynthSettings:
    """Published settings: Adam at `learning_rate`, `n_steps` of `n_points`, weights of L1, Dice + CE and both TVs.

    L1 weighs `intensity_weight`, and `late_factor` of it after `late_at` of the steps; the paper does not say when.
    """

    field: HulfSynthField = field(default_factory=HulfSynthField)
    n_steps: int = 15000
    n_points: int = 36864
    learning_rate: float = 5e-5
    intensity_weight: float = 1e3
    late_factor: float = 0.1
    late_at: float = 0.5
    tissue_weight: float = 1e2
    image_tv_weight: float = 0.65
    tissue_tv_weight: float = 0.75

    def __post_init__(self) -> None:
        if self.n_steps < 1 or self.n_points < 384 or self.n_points % 384 or self.learning_rate <= 0:
            raise BadInputError(
                f"HULFSynth needs a positive rate, one step or more and a multiple of 384 points, got {self}"
            )
        weights = (self.intensity_weight, self.tissue_weight, self.image_tv_weight, self.tissue_tv_weight)
        if min(weights) < 0 or min(self.late_factor, self.late_at) < 0:
            raise BadInputError(f"HULFSynth needs weights of at least 0, got {self}")


@dataclass(frozen=True, eq=False)
class HulfSynthFit:
    """Image (in `solution.x`) and tissues on the lattice, what renders them elsewhere, and the seconds of a step."""

    image: Volume
    tissues: TissueMap
    fitted: FittedField
    solution: Solution
    seconds_per_step: float


def fit_hulfsynth(
    scan: Volume, tissues: TissueMap, lattice: Grid, seed: int, settings: HulfSynthSettings | None = None
) -> HulfSynthFit:
    """Fit the published network to `scan` (WM near 1) and `tissues`, both on the scan's grid, and render on `lattice`.

    Raises:
        GridMismatchError: tissues on another grid.
        BadInputError: a fit that diverged.
    """
    settings = settings or HulfSynthSettings()
    require_same_grid(scan.grid, tissues.grid, "the scan and its tissue maps")
    prob = torch.cat([tissues.prob, (1 - tissues.prob.sum(0, keepdim=True)).clamp_min(0)]).flatten(1)
    values, n_classes = scan.data.reshape(-1), len(prob)
    net = settings.field.build(lattice, 1 + n_classes, seeded(seed, "inr.hulfsynth:field"))
    points = seeded(seed, "inr.hulfsynth:points")
    optimiser = torch.optim.Adam(net.parameters(), settings.learning_rate)
    history = []
    begin = time.perf_counter()
    for step in tqdm(range(settings.n_steps), desc="HULFSynth", disable=None):
        voxels = torch.stack([torch.randint(n, (settings.n_points,), generator=points) for n in lattice.shape], 1)
        positions = to_world(lattice, voxels.numpy())
        nearest = _nearest(scan.grid, positions)
        optimiser.zero_grad()
        loss = _loss(net(torch.from_numpy(positions)), values[nearest], prob[:, nearest], step, settings)
        if not bool(torch.isfinite(loss)):
            raise BadInputError("HULFSynth diverged; check the scan for outliers")
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        history.append(loss.item())
    seconds = (time.perf_counter() - begin) / settings.n_steps
    everywhere = torch.ones(lattice.shape, dtype=torch.bool)
    first = torch.zeros(1 + n_classes, everywhere.numel())
    fitted = FittedField(net, settings.field, first, everywhere, everywhere, tissues.names)
    image, found = render(fitted, lattice)
    return HulfSynthFit(image, found, fitted, ended(image.data, history), seconds)


def _nearest(grid: Grid, positions_mm: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Tensor:
    """Return the flat index of the voxel of `grid` nearest to each position (n, 3)."""
    voxels = np.rint(to_voxel(grid, positions_mm)).astype(np.int64)
    voxels = voxels.clip(0, np.array(grid.shape) - 1)
    return torch.from_numpy(np.ravel_multi_index(tuple(voxels.T), grid.shape))


def _loss(outputs: Tensor, values: Tensor, prob: Tensor, step: int, settings: HulfSynthSettings) -> Tensor:
    """Return the published loss of raw `outputs` (1 + T, n) against `values` (n) and `prob` (T, n)."""
    late = step >= settings.late_at * settings.n_steps
    weight = settings.intensity_weight * (settings.late_factor if late else 1.0)
    intensity = (outputs[0].relu() - values).abs().mean()
    logits = outputs[1:]
    log_shares = torch.log_softmax(logits, 0)
    shares = log_shares.exp()
    overlap = 2 * (shares * prob).sum(1) / (shares.square() + prob.square()).sum(1).clamp_min(1e-5)
    tissue = (1 - overlap.mean()) - (prob * log_shares).sum(0).mean()
    variation = settings.image_tv_weight * _variation(outputs[:1]) + settings.tissue_tv_weight * _variation(logits)
    return weight * intensity + settings.tissue_weight * tissue + variation


def _variation(outputs: Tensor) -> Tensor:
    """Return the mean differences, summed over rows (T, n) and the last two axes of the batch as (n / 384, 96, 4)."""
    blocks = outputs.reshape(len(outputs), -1, 96, 4)
    return sum((torch.diff(blocks, dim=a).abs().mean((1, 2, 3)).sum() for a in (2, 3)), torch.zeros(()))
