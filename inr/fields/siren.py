"""SIREN: sines of affine maps (Sitzmann et al., NeurIPS 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inr.fields.gabor import uniform
from inr.fields.mlp import MlpField, first_weights, radian_mm
from mrcore.data.grid import Grid
from mrcore.errors import BadInputError


class SineLayer(nn.Module):
    """sin(frequency (W x + b)) on (n_in, points), with the bounds of GaborLayer for W and b (section 3.2)."""

    def __init__(self, n_in: int, n_out: int, frequency: float, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(uniform((n_out, n_in), math.sqrt(6 / n_in) / frequency, generator))
        self.bias = nn.Parameter(uniform((n_out, 1), math.pi / frequency, generator))
        self.frequency = frequency

    def forward(self, x: Tensor) -> Tensor:
        """Map features (n_in, points) to (n_out, points)."""
        return torch.sin(self.frequency * (self.weight @ x + self.bias))


@dataclass(frozen=True)
class Siren:
    """A SIREN of `n_layers` x `n_hidden`; the waves of the first layer reach `bandwidth_per_mm` (cycles/mm) per axis.

    `frequency` of the other layers is that of the paper: it sets how fast they learn, not what they start as.
    """

    bandwidth_per_mm: float = 0.03
    n_hidden: int = 128
    n_layers: int = 3
    frequency: float = 30.0

    def __post_init__(self) -> None:
        if min(self.bandwidth_per_mm, self.frequency) <= 0 or min(self.n_hidden, self.n_layers) < 1:
            raise BadInputError(f"a SIREN needs a positive bandwidth, frequency and sizes, got {self}")

    def build(self, grid: Grid, n_outputs: int, generator: torch.Generator) -> MlpField:
        """Build the field for the lattice `grid`."""
        layers = [SineLayer(3, self.n_hidden, 1.0, generator)]
        with torch.no_grad():
            layers[0].weight.copy_(first_weights(self.n_hidden, generator))
        layers += [SineLayer(self.n_hidden, self.n_hidden, self.frequency, generator) for _ in range(1, self.n_layers)]
        return MlpField(grid, n_outputs, (radian_mm(self.bandwidth_per_mm),) * 3, layers, self.n_hidden)
