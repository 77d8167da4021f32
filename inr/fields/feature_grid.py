"""Multi-level feature grids: learned features at several spacings in mm, interpolated linearly.

On a lattice the interpolation is three small matrix products per level, exact and deterministic; at scattered
positions it is trilinear. Both give the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mrcore.data.grid import Grid


class FeatureGrid(nn.Module):
    """Features (C, a, b, c) on nodes `spacing_mm` apart that cover the lattice `grid`, centred on it."""

    def __init__(self, grid: Grid, spacing_mm: float, n_features: int, generator: torch.Generator) -> None:
        super().__init__()
        extent = [(n - 1) * d for n, d in zip(grid.shape, grid.spacing_mm, strict=True)]
        nodes = [math.ceil(e / spacing_mm - 1e-9) + 1 for e in extent]
        self.spacing_mm = spacing_mm
        self.offset_mm = [((n - 1) * spacing_mm - e) / 2 for n, e in zip(nodes, extent, strict=True)]
        self.features = nn.Parameter(1e-3 * torch.randn(n_features, *nodes, generator=generator))
        for axis in range(3):
            matrix = _hat_matrix(grid.shape[axis], grid.spacing_mm[axis], nodes[axis], spacing_mm, self.offset_mm[axis])
            self.register_buffer(f"matrix{axis}", matrix, persistent=False)
        # Which nodes each row of the lattice uses: as numbers, since reading them from a GPU would stop it.
        used = self.get_buffer("matrix0") > 0
        last = used.shape[1] - 1
        self._first_node = used.int().argmax(1).tolist()
        self._last_node = (last - used.int().flip(1).argmax(1)).tolist()

    def planes(self, box: tuple[slice, slice]) -> Tensor:
        """Interpolate along the last two axes of the lattice, within `box` of them: (C, a, y, z)."""
        along_z = self.features @ self.get_buffer("matrix2")[box[1]].T
        return torch.matmul(self.get_buffer("matrix1")[box[0]], along_z)

    def add_planes_adjoint(self, planes: Tensor, box: tuple[slice, slice]) -> None:
        """Add the adjoint of `planes` (C, a, y, z) to the gradient of the features."""
        with torch.no_grad():
            along_y = torch.matmul(self.get_buffer("matrix1")[box[0]].T, planes)
            found = along_y @ self.get_buffer("matrix2")[box[1]]
        self.features.grad = found if self.features.grad is None else self.features.grad.add_(found)

    def slab(self, planes: Tensor, rows: slice) -> Tensor:
        """Interpolate `planes` along the first axis for some lattice rows: (C, rows * y * z)."""
        matrix, support = self._rows(rows)
        part = planes[:, support].reshape(planes.shape[0], support.stop - support.start, -1)
        return torch.matmul(matrix, part).reshape(planes.shape[0], -1)

    def add_slab_adjoint(self, slab: Tensor, rows: slice, planes: Tensor) -> None:
        """Add the adjoint of `slab` (C, rows * y * z) to `planes` in place."""
        matrix, support = self._rows(rows)
        columns = slab.reshape(slab.shape[0], matrix.shape[0], -1)
        planes[:, support].flatten(2).baddbmm_(matrix.T.expand(len(slab), -1, -1), columns)

    def _rows(self, rows: slice) -> tuple[Tensor, slice]:
        """Return the interpolation matrix of some rows without its zero columns, and where those kept lie."""
        support = slice(min(self._first_node[rows]), max(self._last_node[rows]) + 1)
        return self.get_buffer("matrix0")[rows, support], support

    def at(self, offsets_mm: Tensor) -> Tensor:
        """Interpolate at positions (n, 3) in mm from the first lattice voxel, along the lattice axes: (C, n)."""
        nodes = offsets_mm.new_tensor(self.features.shape[1:])
        index = (offsets_mm + offsets_mm.new_tensor(self.offset_mm)) / self.spacing_mm
        unit = (2 * index / (nodes - 1).clamp_min(1) - 1).to(self.features)
        sampled = functional.grid_sample(
            self.features[None], unit.flip(-1)[None, :, None, None], align_corners=True, padding_mode="border"
        )
        return sampled[0, :, :, 0, 0]


class MultiLevelGrid(nn.Module):
    """Feature grids at several spacings; their features are concatenated."""

    def __init__(self, grid: Grid, spacings_mm: Sequence[float], n_features: int, generator: torch.Generator) -> None:
        super().__init__()
        self.levels = nn.ModuleList([FeatureGrid(grid, s, n_features, generator) for s in spacings_mm])
        self.widths = [n_features] * len(spacings_mm)

    def grids(self) -> list[FeatureGrid]:
        """Return the levels, coarse to fine as given."""
        return [level for level in self.levels if isinstance(level, FeatureGrid)]

    def at(self, offsets_mm: Tensor) -> Tensor:
        """Return all features (C, n) at positions (n, 3), as in `FeatureGrid.at`."""
        return torch.cat([level.at(offsets_mm) for level in self.grids()])


def _hat_matrix(n_lattice: int, lattice_mm: float, n_nodes: int, spacing_mm: float, offset_mm: float) -> Tensor:
    position = (torch.arange(n_lattice, dtype=torch.float64) * lattice_mm + offset_mm) / spacing_mm
    return (1 - (position[:, None] - torch.arange(n_nodes)).abs()).clamp_min(0).float()
