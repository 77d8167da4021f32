"""The default field: a multi-level feature grid decoded by Gabor wavelets; a position in mm in, a correction out."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inr.fields.base import Field, Slabs, in_turn, per_chunk, per_slab
from inr.fields.feature_grid import MultiLevelGrid
from inr.fields.gabor import Decoder, GaborLayer
from mrcore.data.grid import Grid
from mrcore.errors import BadInputError


@dataclass(frozen=True)
class FieldSettings:
    """Shape of the field: feature-grid spacings and the Gabor decoder (`frequency` w and `decay` s of the wavelet).

    The finest level follows the lattice, `finest_voxels` of its voxels apart: denser nodes add nothing. Of
    `spacings_mm` those count that are at least 1.4 times coarser.
    """

    spacings_mm: tuple[float, ...] = (8.0, 4.0, 2.0)
    finest_voxels: float = 1.3
    n_features: int = 4
    n_hidden: int = 16
    n_layers: int = 1
    frequency: float = 3.0
    decay: float = 1.0

    def __post_init__(self) -> None:
        sizes = (self.n_features, self.n_hidden, self.n_layers)
        lengths = (*self.spacings_mm, self.finest_voxels, self.frequency)
        if min(lengths) <= 0 or min(sizes) < 1 or self.decay < 0:
            raise BadInputError(f"a field needs positive spacings, sizes and frequency and a decay >= 0, got {self}")

    def build(self, grid: Grid, n_outputs: int, generator: torch.Generator) -> GaborField:
        """Build the field for the lattice `grid`."""
        return GaborField(grid, self, n_outputs, generator)


class GaborField(Field):
    """Multi-level feature grid decoded by Gabor-wavelet layers; outputs (n_outputs, points).

    The first output is the intensity correction, the others are tissue logits. All start close to zero.
    """

    def __init__(self, grid: Grid, settings: FieldSettings, n_outputs: int, generator: torch.Generator) -> None:
        super().__init__(grid, n_outputs)
        finest = settings.finest_voxels * min(grid.spacing_mm)
        spacings = [s for s in settings.spacings_mm if s >= 1.4 * finest]
        self.encoding = MultiLevelGrid(grid, [*spacings, finest], settings.n_features, generator)
        widths = [sum(self.encoding.widths)] + [settings.n_hidden] * settings.n_layers
        hidden = [
            GaborLayer(a, b, settings.frequency, settings.decay, generator) for a, b in itertools.pairwise(widths)
        ]
        self._kept: tuple[object, list[Tensor]] | None = None
        self.decoder = Decoder(nn.Sequential(*hidden), widths[0], settings.n_hidden, n_outputs, generator)

    def forward(self, positions_mm: Tensor) -> Tensor:
        """Evaluate at world positions (n, 3) in mm; outside the lattice the nearest features are used."""
        half = [(n - 1) / 2 * s for n, s in zip(self.grid.shape, self.grid.spacing_mm, strict=True)]
        offsets = self.local_mm(positions_mm).T + torch.tensor(half, dtype=torch.float64)
        out: Tensor = self.decoder(self.encoding.at(offsets))
        return out

    def evaluate(self, slabs: Slabs) -> Tensor:
        """Return the outputs (n_outputs, n_points) on the foreground of the lattice, without a graph."""
        levels, planes = self.encoding.grids(), self._planes(slabs)

        def decode(slab: int) -> Tensor:
            with torch.no_grad():
                features = torch.cat([e.slab(p, slabs.rows[slab]) for e, p in zip(levels, planes, strict=True)])
                return torch.cat([self.decoder(features.index_select(1, chunk)) for chunk in slabs.inside[slab]], 1)

        return torch.cat(list(in_turn(decode, len(slabs.rows), slabs.device)), 1)

    def backpropagate(self, slabs: Slabs, gradient: Tensor) -> None:
        """Add the pull-back of `gradient` to the parameters' `.grad`, as in `Field`."""
        levels, planes = self.encoding.grids(), self._planes(slabs)
        parameters = list(self.decoder.parameters())
        pulled = [torch.zeros_like(p) for p in planes]
        parts = per_slab(gradient, slabs)

        def pull(slab: int) -> tuple[Tensor, list[Tensor]]:
            with torch.no_grad():
                features = torch.cat([e.slab(p, slabs.rows[slab]) for e, p in zip(levels, planes, strict=True)])
            feature_gradient = torch.zeros_like(features)
            total = [torch.zeros_like(p) for p in parameters]
            for chunk, part in zip(slabs.inside[slab], per_chunk(parts[slab], slabs.inside[slab]), strict=True):
                points = features.index_select(1, chunk).requires_grad_(True)
                with torch.enable_grad():
                    found = torch.autograd.grad(self.decoder(points), [points, *parameters], part)
                feature_gradient.index_copy_(1, chunk, found[0])
                for sum_, each in zip(total, found[1:], strict=True):
                    sum_ += each
            return feature_gradient, total

        for slab, (feature_gradient, total) in enumerate(in_turn(pull, len(slabs.rows), slabs.device)):
            by_level = torch.split(feature_gradient, self.encoding.widths)
            for level, part, out in zip(levels, by_level, pulled, strict=True):
                level.add_slab_adjoint(part, slabs.rows[slab], out)
            for parameter, each in zip(parameters, total, strict=True):
                parameter.grad = each if parameter.grad is None else parameter.grad + each
        for level, each in zip(levels, pulled, strict=True):
            level.add_planes_adjoint(each, slabs.box)
        self._kept = None

    def _planes(self, slabs: Slabs) -> list[Tensor]:
        """Return the planes of each level; on a CPU a step, which evaluates and goes back, interpolates them once."""
        levels = self.encoding.grids()
        if levels[0].features.device.type != "cpu" or not torch.is_grad_enabled():
            # A graph that is captured must hold all that its replay needs; without gradients there is no way back.
            return self._interpolated(slabs)
        # An optimiser changes features in place, which their versions tell.
        state = (slabs.box, *((level.features.data_ptr(), level.features._version) for level in levels))
        if self._kept is None or self._kept[0] != state:
            self._kept = (state, self._interpolated(slabs))
        return self._kept[1]

    def _interpolated(self, slabs: Slabs) -> list[Tensor]:
        with torch.no_grad():
            return [level.planes(slabs.box) for level in self.encoding.grids()]
