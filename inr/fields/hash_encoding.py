"""Features of positions in the unit cube from tables of hashed grid nodes (Müller et al. 2022)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

PRIMES = (1, 2654435761, 805459861)
"""Factors of the spatial hash (equation 4 of the paper)."""


@dataclass(frozen=True)
class HashShape:
    """Sizes of a hash encoding on the unit cube: `n_levels` from `base_resolution` nodes on, growing by `growth`."""

    n_levels: int
    n_features: int
    log2_entries: int
    base_resolution: int
    growth: float

    def scale(self, level: int) -> float:
        """Return cells across the cube at `level`; half a cell more on each side, nodes lie at the cells' corners."""
        return self.base_resolution * 2 ** (level * math.log2(self.growth)) - 1

    def resolution(self, level: int) -> int:
        """Return nodes along each axis at `level`."""
        return math.ceil(self.scale(level)) + 1

    def entries(self, level: int) -> int:
        """Return the entries of the table of `level`: a multiple of 8, at most 2^log2_entries."""
        return int(min(math.ceil(self.resolution(level) ** 3 / 8) * 8, 2**self.log2_entries))


class HashEncoding(nn.Module):
    """Features of positions in the unit cube, (n, 3) to (n_levels * n_features, n), interpolated trilinearly.

    `table` holds the levels one after the other, each (entries, n_features), flat.
    """

    def __init__(self, shape: HashShape, generator: torch.Generator) -> None:
        super().__init__()
        self.shape = shape
        sizes = [shape.entries(level) * shape.n_features for level in range(shape.n_levels)]
        self.bounds = [0, *itertools.accumulate(sizes)]
        self.table = nn.Parameter(1e-3 * torch.randn(self.bounds[-1], generator=generator))
        # Constants that move with the module: made anew at each call they would have to be copied to a GPU.
        corners = torch.tensor(list(itertools.product((0, 1), repeat=3)))
        strides = torch.tensor([[1, n, n**2] for n in map(shape.resolution, range(shape.n_levels))])
        for name, values in (("corners", corners), ("strides", strides), ("primes", torch.tensor(PRIMES))):
            self.register_buffer(name, values, persistent=False)

    def forward(self, unit: Tensor) -> Tensor:
        """Interpolate at positions (n, 3) in 0 to 1."""
        return torch.cat([self.level(unit, level) for level in range(self.shape.n_levels)])

    def level(self, unit: Tensor, level: int) -> Tensor:
        """Return the features (n_features, n) of one level; the last half cell of the cube belongs to other nodes."""
        position = unit * self.shape.scale(level) + 0.5
        cell = position.floor()
        fraction, cell = position - cell, cell.long()
        table = self.table[self.bounds[level] : self.bounds[level + 1]].view(-1, self.shape.n_features)
        out = unit.new_zeros(len(unit), self.shape.n_features)
        for offset in self.get_buffer("corners"):
            weight = torch.where(offset.bool(), fraction, 1 - fraction).prod(1)
            out = out + weight[:, None] * table.index_select(0, self.index(cell + offset, level))
        return out.T

    def index(self, nodes: Tensor, level: int) -> Tensor:
        """Return the entries (n) of integer nodes (n, 3): their row-major place, first axis fastest, or their hash."""
        n, resolution = self.shape.entries(level), self.shape.resolution(level)
        if resolution**3 <= n:
            return (nodes * self.get_buffer("strides")[level]).sum(1) % n
        # 32-bit arithmetic of the hash, in 64 bits.
        mixed = (nodes * self.get_buffer("primes")) & 0xFFFFFFFF
        return (mixed[:, 0] ^ mixed[:, 1] ^ mixed[:, 2]) % n
