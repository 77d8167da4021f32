"""Multi-resolution hash grid (Mueller et al., Instant-NGP, SIGGRAPH 2022) in plain torch, with spacings in mm.

Levels grow by a constant factor. A level whose nodes fit the table is stored densely; others share entries by a
spatial hash. Indices, order and offsets of half a cell are those of tiny-cuda-nn, so that its tables mean the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inr.fields.base import PointField
from inr.fields.gabor import Decoder, GaborLayer
from inr.fields.hash_encoding import HashEncoding, HashShape
from mrcore.data.grid import Grid
from mrcore.errors import BadInputError


@dataclass(frozen=True)
class HashGrid:
    """Hash grid from `coarsest_mm` to `finest_voxels` voxels of the lattice, decoded by a Gabor layer.

    `accelerated` evaluates the encoding by tiny-cuda-nn (see `inr.fields.tcnn`); what is learned means the same.
    """

    coarsest_mm: float = 16.0
    finest_voxels: float = 1.3
    n_levels: int = 6
    n_features: int = 2
    log2_entries: int = 17
    n_hidden: int = 32
    frequency: float = 3.0
    decay: float = 1.0
    accelerated: bool = False

    def __post_init__(self) -> None:
        sizes = (self.n_features, self.n_hidden)
        if min(self.coarsest_mm, self.finest_voxels, self.frequency) <= 0 or min(sizes) < 1 or self.decay < 0:
            raise BadInputError(f"a hash grid needs positive spacings, sizes and frequency, got {self}")
        if self.n_levels < 2 or not 4 <= self.log2_entries <= 24:
            raise BadInputError(f"a hash grid needs 2 levels or more and log2_entries from 4 to 24, got {self}")

    def build(self, grid: Grid, n_outputs: int, generator: torch.Generator) -> HashField:
        """Build the field for the lattice `grid`; tiny-cuda-nn's problems are those of `TcnnEncoding`."""
        return HashField(grid, self, n_outputs, generator)


class HashField(PointField):
    """Hash encoding over the cube that holds the field of view, and a small decoder."""

    def __init__(self, grid: Grid, settings: HashGrid, n_outputs: int, generator: torch.Generator) -> None:
        super().__init__(grid, n_outputs)
        shape, self.cube_mm = _shape(grid, settings)
        twin = HashEncoding(shape, generator)
        encoding: nn.Module = twin
        if settings.accelerated:
            from inr.fields.tcnn import TcnnEncoding

            encoding = TcnnEncoding(twin)
        n_in = shape.n_levels * shape.n_features
        hidden = GaborLayer(n_in, settings.n_hidden, settings.frequency, settings.decay, generator)
        self.reach = 0.5 - 0.5 / shape.scale(0)
        # First, so that positions are made on its device and not on that of an accelerated encoding.
        self.decoder = Decoder(hidden, n_in, settings.n_hidden, n_outputs, generator)
        self.encoding = encoding

    def decode(self, local_mm: Tensor) -> Tensor:
        """Map coordinates (3, n) in mm to outputs (n_outputs, n); far outside the nearest features are used."""
        unit = (local_mm.T / self.cube_mm).clamp(-self.reach, self.reach) + 0.5
        out: Tensor = self.decoder(self.encoding(unit))
        return out


def _shape(grid: Grid, settings: HashGrid) -> tuple[HashShape, float]:
    """Return the encoding's shape and the edge of its cube in mm: a whole number of the coarsest cells."""
    finest_mm = settings.finest_voxels * min(grid.spacing_mm)
    if finest_mm >= settings.coarsest_mm:
        raise BadInputError(
            f"the coarsest level ({settings.coarsest_mm:g} mm) must be coarser than the finest ({finest_mm:g} mm)"
        )
    # Half a cell more on each side: beyond the last node, indices run on into the next row.
    n_cells = math.ceil(max(grid.fov_mm) / settings.coarsest_mm - 1e-9) + 1
    cube_mm = n_cells * settings.coarsest_mm
    base = n_cells + 1
    growth = ((cube_mm / finest_mm + 1) / base) ** (1 / (settings.n_levels - 1))
    return HashShape(settings.n_levels, settings.n_features, settings.log2_entries, base, growth), cube_mm
