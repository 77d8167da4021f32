"""The field: a position in mm in, a correction of the intensity and tissue logits out."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from inr.encoding import MultiLevelGrid
from inr.gabor import GaborLayer, LinearLayer
from mrcore.errors import BadInputError
from mrcore.grid import Grid, to_voxel

Result = TypeVar("Result")


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


class GaborField(nn.Module):
    """Multi-level feature grid decoded by Gabor-wavelet layers; outputs (n_outputs, points).

    The first output is the intensity correction, the others are tissue logits. All start close to zero.
    """

    def __init__(self, grid: Grid, settings: FieldSettings, n_outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.grid = grid
        finest = settings.finest_voxels * min(grid.spacing_mm)
        spacings = [s for s in settings.spacings_mm if s >= 1.4 * finest]
        self.encoding = MultiLevelGrid(grid, [*spacings, finest], settings.n_features, generator)
        widths = [sum(self.encoding.widths)] + [settings.n_hidden] * settings.n_layers
        hidden = [
            GaborLayer(a, b, settings.frequency, settings.decay, generator) for a, b in itertools.pairwise(widths)
        ]
        self.decoder = _Decoder(nn.Sequential(*hidden), widths[0], settings.n_hidden, n_outputs, generator)

    def forward(self, positions_mm: Tensor) -> Tensor:
        """Evaluate at world positions (n, 3) in mm; outside the lattice the nearest features are used."""
        voxels = torch.from_numpy(to_voxel(self.grid, positions_mm.detach().cpu().numpy().astype(np.float64)))
        offsets = voxels * torch.tensor(self.grid.spacing_mm, dtype=torch.float64)
        out: Tensor = self.decoder(self.encoding.at(offsets))
        return out


class _Decoder(nn.Module):
    """Gabor layers plus a linear path from the features to the outputs, which the descent conditions much better."""

    def __init__(self, hidden: nn.Module, n_in: int, n_hidden: int, n_outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = hidden
        self.head = LinearLayer(n_hidden, n_outputs)
        self.direct = nn.Parameter(torch.randn(n_outputs, n_in, generator=generator))

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.head(self.hidden(features)) + self.direct @ features
        return out


@dataclass(frozen=True, eq=False)
class Slabs:
    """Foreground of a lattice, cut into slabs along its first axis that are evaluated one by one.

    `rows` are lattice rows; `inside` are the flat foreground indices in each slab, in chunks; `n_points` counts them.
    """

    rows: tuple[slice, ...]
    inside: tuple[tuple[Tensor, ...], ...]
    n_points: int


CHUNK_POINTS = 16384
"""Points decoded at once: their features stay in a core's cache, which halves the time of large chunks."""


def slabs_of(foreground: Tensor, n_rows: int = 4) -> Slabs:
    """Cut `foreground` (X, Y, Z, bool) into slabs of `n_rows`; empty ones are left out."""
    rows, inside = [], []
    for start in range(0, foreground.shape[0], n_rows):
        part = foreground[start : start + n_rows].reshape(-1).nonzero()[:, 0]
        if len(part):
            rows.append(slice(start, min(start + n_rows, foreground.shape[0])))
            inside.append(torch.split(part, CHUNK_POINTS))
    if not rows:
        raise BadInputError("the foreground is empty: the scan has no voxel above its noise")
    return Slabs(tuple(rows), tuple(inside), int(foreground.sum()))


def evaluate(field: GaborField, slabs: Slabs) -> Tensor:
    """Return the outputs (n_outputs, n_points) on the foreground of the lattice, without a graph."""
    levels = field.encoding.grids()
    with torch.no_grad():
        planes = [level.planes() for level in levels]

    def decode(slab: int) -> Tensor:
        with torch.no_grad():
            features = torch.cat([e.slab(p, slabs.rows[slab]) for e, p in zip(levels, planes, strict=True)])
            return torch.cat([field.decoder(features.index_select(1, chunk)) for chunk in slabs.inside[slab]], 1)

    return torch.cat(list(_in_threads(decode, len(slabs.rows))), 1)


def backpropagate(field: GaborField, slabs: Slabs, gradient: Tensor) -> None:
    """Add to the parameters' `.grad` the pull-back of `gradient` (n_outputs, n_points), slab by slab.

    The outputs are evaluated again with a graph that lives for one chunk only, so memory does not grow with the
    lattice. The sum over chunks is exact and always taken in the same order, whatever the number of threads.
    """
    levels = field.encoding.grids()
    parameters = list(field.decoder.parameters())
    planes = [level.planes() for level in levels]
    pulled = [torch.zeros_like(p) for p in planes]
    parts = torch.split(gradient, [sum(map(len, chunks)) for chunks in slabs.inside], 1)

    def pull(slab: int) -> tuple[Tensor, list[Tensor]]:
        with torch.no_grad():
            features = torch.cat([e.slab(p, slabs.rows[slab]) for e, p in zip(levels, planes, strict=True)])
        feature_gradient = torch.zeros_like(features)
        total = [torch.zeros_like(p) for p in parameters]
        for chunk, part in zip(slabs.inside[slab], torch.split(parts[slab], CHUNK_POINTS, 1), strict=True):
            points = features.index_select(1, chunk).requires_grad_(True)
            with torch.enable_grad():
                found = torch.autograd.grad(field.decoder(points), [points, *parameters], part)
            feature_gradient.index_copy_(1, chunk, found[0])
            for sum_, each in zip(total, found[1:], strict=True):
                sum_ += each
        return feature_gradient, total

    for slab, (feature_gradient, total) in enumerate(_in_threads(pull, len(slabs.rows))):
        for level, part, out in zip(levels, torch.split(feature_gradient, field.encoding.widths), pulled, strict=True):
            level.add_slab_adjoint(part, slabs.rows[slab], out)
        for parameter, each in zip(parameters, total, strict=True):
            parameter.grad = each if parameter.grad is None else parameter.grad + each
    torch.autograd.backward(planes, pulled)


def _in_threads(work: Callable[[int], Result], n_items: int) -> Iterator[Result]:
    """Yield `work(i)` in order, computed by as many threads as torch may use, each item by one of them.

    The arrays of a chunk are small: splitting each operation among the cores costs more than it gains.
    """
    n_threads = torch.get_num_threads()
    with ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in range(n_items):
            waiting.append(pool.submit(work, item))
            # Few results are kept at a time: each holds the features of a slab.
            if len(waiting) > 2 * n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
