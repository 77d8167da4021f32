"""Pure Gabor MLPs: wave packets of the position, without a grid of features.

Three forms: one affine map for wave and envelope (real), two maps as in HULFSynth (arXiv:2511.14897, real), and
complex wave packets (WIRE, Saragadam et al., CVPR 2023). Bandwidths of the first layer are in 1/mm, so that settings
serve every voxel size and field of view.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from inr.fields.gabor import GaborLayer, uniform
from inr.fields.mlp import MlpField, centres, first_weights, plain_init, radian_mm
from mrcore.data.grid import Grid
from mrcore.errors import BadInputError


class TwoMapGaborLayer(nn.Module):
    """cos(frequency u) exp(-(decay v)^2) on (n_in, points), of two affine maps u and v; bounds as GaborLayer.

    `weight` and `bias` hold the map of the wave, then that of the envelope.
    """

    def __init__(self, n_in: int, n_out: int, frequency: float, decay: float, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(uniform((2 * n_out, n_in), math.sqrt(6 / n_in) / frequency, generator))
        self.bias = nn.Parameter(uniform((2 * n_out, 1), math.pi / frequency, generator))
        self.frequency, self.decay = frequency, decay

    def forward(self, x: Tensor) -> Tensor:
        """Map features (n_in, points) to (n_out, points)."""
        wave, envelope = (self.weight @ x + self.bias).chunk(2)
        return torch.cos(self.frequency * wave) * torch.exp(-((self.decay * envelope) ** 2))


class WireLayer(nn.Module):
    """exp(i frequency z - |decay z|^2) of a complex affine map z; real and imaginary parts are stacked as channels.

    Maps (2 n_in, points) to (2 n_out, points); where the input is real (`real_input`) it is (n_in, points), and so is
    the map of the wave, as in the paper's first layer.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        frequency: float,
        decay: float,
        generator: torch.Generator,
        real_input: bool = False,
    ) -> None:
        super().__init__()
        # Real and imaginary part each carry half of the variance of a real weight.
        bound = math.sqrt(6 / n_in) / frequency
        rows = n_out if real_input else 2 * n_out
        self.weight = nn.Parameter(uniform((rows, n_in), bound if real_input else bound / math.sqrt(2), generator))
        self.bias = nn.Parameter(torch.zeros(rows, 1))
        with torch.no_grad():
            self.bias[:n_out] = uniform((n_out, 1), math.pi / frequency, generator)
        self.frequency, self.decay, self.real_input = frequency, decay, real_input

    def forward(self, x: Tensor) -> Tensor:
        """Map stacked parts to stacked parts."""
        if self.real_input:
            u = self.weight @ x + self.bias
            envelope = torch.exp(-((self.decay * u) ** 2))
        else:
            u, v = self._product(x)
            envelope = torch.exp(-self.frequency * v - self.decay**2 * (u * u + v * v))
        phase = self.frequency * u
        return torch.cat([torch.cos(phase) * envelope, torch.sin(phase) * envelope])

    def _product(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return real and imaginary part of the complex affine map."""
        real, imag = self.weight.chunk(2)
        matrix = torch.cat([torch.cat([real, -imag], 1), torch.cat([imag, real], 1)])
        u, v = (matrix @ x + self.bias).chunk(2)
        return u, v


@dataclass(frozen=True)
class _GaborDesign(ABC):
    """Settings that the three designs share, and how they are built; what differs are the layers."""

    frequency_per_mm: float = 0.05
    decay_per_mm: float = 0.03
    n_hidden: int = 128
    n_layers: int = 3
    frequency: float = 30.0
    decay: float = 5.0
    siren_init: bool = True

    def __post_init__(self) -> None:
        bands = (self.frequency_per_mm, self.frequency)
        decays = (self.decay_per_mm, self.decay)
        if min(bands) <= 0 or min(decays) < 0 or min(self.n_hidden, self.n_layers) < 1:
            raise BadInputError(f"a Gabor MLP needs positive frequencies and sizes and decays >= 0, got {self}")

    @property
    def n_features(self) -> int:
        """Real outputs of a layer."""
        return self.n_hidden

    @abstractmethod
    def first(self, grid: Grid, unit_mm: float, generator: torch.Generator) -> nn.Module:
        """Return the layer that takes positions, its packets centred in the field of view of `grid`."""

    @abstractmethod
    def inner(self, generator: torch.Generator) -> nn.Module:
        """Return one of the other layers."""

    def build(self, grid: Grid, n_outputs: int, generator: torch.Generator) -> MlpField:
        """Build the field for the lattice `grid`."""
        unit_mm = radian_mm(self.frequency_per_mm)
        first = self.first(grid, unit_mm, generator)
        rest = [self.inner(generator) for _ in range(1, self.n_layers)]
        if not self.siren_init:
            for layer in rest:
                plain_init(layer, generator)
        return MlpField(grid, n_outputs, (unit_mm,) * 3, [first, *rest], self.n_features)


@final
@dataclass(frozen=True)
class GaborMlp(_GaborDesign):
    """Real Gabor MLP, one map a unit: cos(2 pi f u) exp(-(s u)^2) of a position u = d . x - c in mm in its first layer.

    `frequency_per_mm` f (cycles/mm per axis) and `decay_per_mm` s are those of the first layer; d is uniform in -1 to
    1, and the packets are centred uniformly in the field of view. `frequency` and `decay` are those of the other
    layers. `siren_init` keeps the variance of the phase from layer to layer; without it they start as linear layers
    of torch do.
    """

    def first(self, grid: Grid, unit_mm: float, generator: torch.Generator) -> nn.Module:
        """Return the layer that takes positions."""
        layer = GaborLayer(3, self.n_hidden, 1.0, self.decay_per_mm * unit_mm, generator)
        _centre(layer, grid, unit_mm, slice(None), generator)
        return layer

    def inner(self, generator: torch.Generator) -> nn.Module:
        """Return one of the other layers."""
        return GaborLayer(self.n_hidden, self.n_hidden, self.frequency, self.decay, generator)


@final
@dataclass(frozen=True)
class TwoMapGaborMlp(_GaborDesign):
    """Real Gabor MLP with maps of their own for wave and envelope; settings as in `GaborMlp`."""

    def first(self, grid: Grid, unit_mm: float, generator: torch.Generator) -> nn.Module:
        """Return the layer that takes positions."""
        layer = TwoMapGaborLayer(3, self.n_hidden, 1.0, self.decay_per_mm * unit_mm, generator)
        with torch.no_grad():
            layer.weight[: self.n_hidden] = first_weights(self.n_hidden, generator)
        _centre(layer, grid, unit_mm, slice(self.n_hidden, None), generator)
        return layer

    def inner(self, generator: torch.Generator) -> nn.Module:
        """Return one of the other layers."""
        return TwoMapGaborLayer(self.n_hidden, self.n_hidden, self.frequency, self.decay, generator)


@final
@dataclass(frozen=True)
class Wire(_GaborDesign):
    """Complex Gabor MLP; settings as in `GaborMlp`, `n_hidden` counts complex channels.

    An imaginary part of the map amplifies by up to exp((frequency / (2 decay))^2): that ratio is kept to 4 at most.
    """

    n_hidden: int = 90
    frequency: float = 20.0
    decay: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frequency > 4 * self.decay:
            raise BadInputError(f"WIRE needs a frequency of at most 4 times the decay, or it overflows, got {self}")

    @property
    def n_features(self) -> int:
        """Real outputs of a layer: both parts."""
        return 2 * self.n_hidden

    def first(self, grid: Grid, unit_mm: float, generator: torch.Generator) -> nn.Module:
        """Return the layer that takes positions."""
        layer = WireLayer(3, self.n_hidden, 1.0, self.decay_per_mm * unit_mm, generator, real_input=True)
        _centre(layer, grid, unit_mm, slice(None), generator)
        return layer

    def inner(self, generator: torch.Generator) -> nn.Module:
        """Return one of the other layers."""
        return WireLayer(self.n_hidden, self.n_hidden, self.frequency, self.decay, generator)


def _centre(layer: nn.Module, grid: Grid, unit_mm: float, rows: slice, generator: torch.Generator) -> None:
    """Draw the map of `rows` of a first layer: directions with components in -1 to 1, centres in the field of view."""
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    directions = first_weights(weight[rows].shape[0], generator)
    offset = (directions * centres(len(directions), grid, unit_mm, generator)).sum(1, keepdim=True)
    with torch.no_grad():
        weight[rows] = directions
        bias[rows] = -offset
