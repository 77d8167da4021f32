"""Fields without a grid: layers over the coordinates in mm, and a linear head that starts at zero."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inr.fields.base import PointField
from inr.fields.gabor import LinearLayer
from inr.fields.precision import exact_products
from mrcore.data.grid import Grid, Triple


class MlpField(PointField):
    """Layers on (3, n) coordinates in units of `unit_mm` per axis, then an affine head of `n_hidden` inputs."""

    def __init__(self, grid: Grid, n_outputs: int, unit_mm: Triple, layers: Sequence[nn.Module], n_hidden: int) -> None:
        super().__init__(grid, n_outputs)
        self.layers = nn.Sequential(*layers)
        self.head = LinearLayer(n_hidden, n_outputs)
        self.register_buffer("per_mm", 1 / torch.tensor(unit_mm, dtype=torch.float64)[:, None], persistent=False)

    def decode(self, local_mm: Tensor) -> Tensor:
        """Map coordinates (3, n) in mm to outputs (n_outputs, n)."""
        # Rounded to tf32, positions would be off by 0.1 mm.
        with exact_products(local_mm.device):
            now = self.layers[0](local_mm * self.get_buffer("per_mm").to(local_mm))
        out: Tensor = self.head(self.layers[1:](now))
        return out


def radian_mm(frequency_per_mm: float) -> float:
    """Return the mm in which a wave of `frequency_per_mm` (cycles/mm) turns by one radian."""
    return 1 / (2 * math.pi * frequency_per_mm)


def first_weights(n_out: int, generator: torch.Generator) -> Tensor:
    """Draw weights (n_out, 3), uniform in -1 to 1: frequencies up to that of the unit along each axis."""
    return 2 * torch.rand((n_out, 3), generator=generator) - 1


def centres(n: int, grid: Grid, unit_mm: float, generator: torch.Generator) -> Tensor:
    """Draw points (n, 3) uniformly in the field of view of `grid`, in units from its centre."""
    return (torch.rand((n, 3), generator=generator) - 0.5) * torch.tensor(grid.fov_mm) / unit_mm


def plain_init(layer: nn.Module, generator: torch.Generator) -> None:
    """Draw `weight` (n_out, n_in) and `bias` uniformly within 1 / sqrt(n_in), as linear layers of torch do."""
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    bound = 1 / math.sqrt(weight.shape[1])
    with torch.no_grad():
        for values in (weight, bias):
            values.copy_((2 * torch.rand(values.shape, generator=generator) - 1) * bound)
