"""Random Fourier features of the position and a plain MLP (Tancik et al., NeurIPS 2020)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from inr.fields.gabor import uniform
from inr.fields.mlp import MlpField
from mrcore.data.grid import Grid
from mrcore.errors import BadInputError


class FourierLayer(nn.Module):
    """cos and sin of 2 pi B x: (3, points) to (2 n, points); the rows of B are fixed."""

    def __init__(self, n: int, bandwidth: float, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("frequencies", bandwidth * torch.randn((n, 3), generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        """Map coordinates to waves of mean square 1 each."""
        phase = 2 * math.pi * (self.get_buffer("frequencies") @ x)
        return math.sqrt(2) * torch.cat([torch.cos(phase), torch.sin(phase)])


class DenseLayer(nn.Module):
    """GELU (or ReLU) of an affine map on (n_in, points); weights keep the mean square (He et al., ICCV 2015)."""

    def __init__(self, n_in: int, n_out: int, gelu: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(uniform((n_out, n_in), math.sqrt(6 / n_in), generator))
        self.bias = nn.Parameter(torch.zeros(n_out, 1))
        self.gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        """Map features (n_in, points) to (n_out, points)."""
        affine = self.weight @ x + self.bias
        return functional.gelu(affine) if self.gelu else functional.relu(affine)


@dataclass(frozen=True)
class FourierMlp:
    """`n_frequencies` random waves, normal with sd `bandwidth_per_mm` (cycles/mm) per axis, then a GELU or ReLU MLP."""

    bandwidth_per_mm: float = 0.06
    n_frequencies: int = 128
    n_hidden: int = 128
    n_layers: int = 2
    gelu: bool = True

    def __post_init__(self) -> None:
        if self.bandwidth_per_mm <= 0 or min(self.n_frequencies, self.n_hidden, self.n_layers) < 1:
            raise BadInputError(f"a Fourier MLP needs a positive bandwidth and sizes, got {self}")

    def build(self, grid: Grid, n_outputs: int, generator: torch.Generator) -> MlpField:
        """Build the field for the lattice `grid`."""
        widths = [2 * self.n_frequencies] + [self.n_hidden] * self.n_layers
        waves = FourierLayer(self.n_frequencies, self.bandwidth_per_mm, generator)
        dense = [DenseLayer(a, b, self.gelu, generator) for a, b in itertools.pairwise(widths)]
        return MlpField(grid, n_outputs, (1.0, 1.0, 1.0), [waves, *dense], self.n_hidden)
