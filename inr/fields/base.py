"""What every field offers: positions in mm in, outputs out; on a lattice it is evaluated in slabs of bounded memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from inr.fields.precision import quick_products
from mrcore.data.grid import Grid, to_voxel
from mrcore.errors import BadInputError

Result = TypeVar("Result")

CHUNK_POINTS, CHUNK_POINTS_GPU = 16384, 2**18
"""Points decoded at once: on a CPU their features stay in a core's cache, which halves the time of large chunks; a GPU
needs more work at a time, and 1 kB a point of a network of 128 units and 3 layers bounds its memory to 1 GB."""
N_ROWS, N_ROWS_GPU = 4, 64
"""Rows of a lattice that are one slab."""


@dataclass(frozen=True, eq=False)
class Slabs:
    """Foreground of a lattice, cut into slabs along its first axis that are evaluated one by one.

    A slab holds the lattice's `rows` along the first axis and, along the others, the box that has foreground at all:
    `inside` are the flat indices of its foreground in (rows, `box`), in chunks; `n_points` counts them.
    """

    rows: tuple[slice, ...]
    box: tuple[slice, slice]
    inside: tuple[tuple[Tensor, ...], ...]
    n_points: int

    @property
    def device(self) -> torch.device:
        """Where the indices are, and the field that they are given to."""
        return self.inside[0][0].device


def slabs_of(foreground: Tensor, n_rows: int | None = None) -> Slabs:
    """Cut `foreground` (X, Y, Z, bool) into slabs of `n_rows` (None: to suit its device); empty ones are left out."""
    n_rows = n_rows or (N_ROWS if foreground.device.type == "cpu" else N_ROWS_GPU)
    if not bool(foreground.any()):
        raise BadInputError("the foreground is empty: the scan has no voxel above its noise")
    box = (_extent(foreground.any(0).any(1)), _extent(foreground.any(0).any(0)))
    rows, inside = [], []
    for start in range(0, foreground.shape[0], n_rows):
        part = foreground[start : start + n_rows, box[0], box[1]].reshape(-1).nonzero()[:, 0]
        if len(part):
            rows.append(slice(start, min(start + n_rows, foreground.shape[0])))
            inside.append(_chunks(part))
    return Slabs(tuple(rows), box, tuple(inside), int(foreground.sum()))


def part_of(slabs: Slabs, chosen: Tensor) -> Slabs:
    """Return the slabs with only the points `chosen` (bool, n_points); slabs left empty are dropped."""
    rows, inside = [], []
    for where, chunks, mine in zip(slabs.rows, slabs.inside, per_slab(chosen, slabs), strict=True):
        if bool(mine.any()):
            rows.append(where)
            inside.append(_chunks(torch.cat(chunks)[mine]))
    return Slabs(tuple(rows), slabs.box, tuple(inside), int(chosen.sum()))


def _extent(occupied: Tensor) -> slice:
    """Return the shortest slice that holds all of `occupied` (n, bool)."""
    at = occupied.nonzero()[:, 0]
    return slice(int(at[0]), int(at[-1]) + 1)


def _chunks(indices: Tensor) -> tuple[Tensor, ...]:
    return torch.split(indices, CHUNK_POINTS if indices.device.type == "cpu" else CHUNK_POINTS_GPU)


def per_slab(values: Tensor, slabs: Slabs) -> tuple[Tensor, ...]:
    """Split the last axis (n_points) of `values` into those of each slab."""
    return torch.split(values, [sum(map(len, chunks)) for chunks in slabs.inside], -1)


def per_chunk(values: Tensor, chunks: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Split the last axis of `values` into those of each chunk of one slab."""
    return torch.split(values, [len(chunk) for chunk in chunks], -1)


class Field(nn.Module, ABC):
    """A function of the position in mm with `n_outputs`: the intensity, then tissue logits.

    `grid` is the lattice it was made for: it bounds the field and places it in the world.
    """

    def __init__(self, grid: Grid, n_outputs: int) -> None:
        super().__init__()
        self.grid = grid
        self.n_outputs = n_outputs

    @abstractmethod
    def forward(self, positions_mm: Tensor) -> Tensor:
        """Evaluate at world positions (n, 3) in mm: (n_outputs, n)."""

    @abstractmethod
    def evaluate(self, slabs: Slabs) -> Tensor:
        """Return the outputs (n_outputs, n_points) on the foreground of the lattice, without a graph."""

    @abstractmethod
    def backpropagate(self, slabs: Slabs, gradient: Tensor) -> None:
        """Add to the parameters' `.grad` the pull-back of `gradient` (n_outputs, n_points), slab by slab.

        The outputs are evaluated again with a graph that lives for one chunk only, so memory does not grow with the
        lattice. The sum over chunks is exact and always taken in the same order, whatever the number of threads.
        """

    def local_mm(self, positions_mm: Tensor) -> Tensor:
        """Return (3, n) in mm from the lattice's centre, along its axes, of world positions (n, 3); float64."""
        voxels = to_voxel(self.grid, positions_mm.detach().cpu().numpy().astype(np.float64))
        middle = (np.array(self.grid.shape) - 1) / 2
        return torch.from_numpy((voxels - middle) * self.grid.spacing_mm).T


class FieldDesign(Protocol):
    """Settings, a frozen dataclass, of which a field can be built."""

    def build(self, grid: Grid, n_outputs: int, generator: torch.Generator) -> Field:
        """Build the field for the lattice `grid`; its first outputs are close to zero."""


class PointField(Field):
    """A field without structure on the lattice: each point is decoded from its coordinates alone."""

    @abstractmethod
    def decode(self, local_mm: Tensor) -> Tensor:
        """Map coordinates (3, n), in mm from the lattice's centre along its axes, to outputs (n_outputs, n)."""

    def forward(self, positions_mm: Tensor) -> Tensor:
        """Evaluate at world positions (n, 3) in mm: (n_outputs, n)."""
        parameter = next(self.parameters())
        return self.decode(self.local_mm(positions_mm).to(parameter))

    def evaluate(self, slabs: Slabs) -> Tensor:
        """Return the outputs (n_outputs, n_points) on the foreground of the lattice, without a graph."""

        def decoded(slab: int) -> Tensor:
            with torch.no_grad():
                return torch.cat([self.decode(self._coordinates(slabs, slab, c)) for c in slabs.inside[slab]], 1)

        with quick_products(slabs.device):
            return torch.cat(list(in_turn(decoded, len(slabs.rows), slabs.device)), 1)

    def backpropagate(self, slabs: Slabs, gradient: Tensor) -> None:
        """Add the pull-back of `gradient` to the parameters' `.grad`, as in `Field`."""
        parameters = list(self.parameters())
        parts = per_slab(gradient, slabs)

        def pull(slab: int) -> list[Tensor]:
            total = [torch.zeros_like(p) for p in parameters]
            for chunk, part in zip(slabs.inside[slab], per_chunk(parts[slab], slabs.inside[slab]), strict=True):
                with torch.enable_grad():
                    found = torch.autograd.grad(self.decode(self._coordinates(slabs, slab, chunk)), parameters, part)
                for sum_, each in zip(total, found, strict=True):
                    sum_ += each
            return total

        with quick_products(slabs.device):
            for total in in_turn(pull, len(slabs.rows), slabs.device):
                for parameter, each in zip(parameters, total, strict=True):
                    parameter.grad = each if parameter.grad is None else parameter.grad + each

    def _coordinates(self, slabs: Slabs, slab: int, chunk: Tensor) -> Tensor:
        """Return the coordinates (3, n) of flat indices `chunk` of a slab."""
        starts = [part.start for part in (slabs.rows[slab], *slabs.box)]
        n_y, n_z = (part.stop - part.start for part in slabs.box)
        within = (chunk // (n_y * n_z), chunk // n_z % n_y, chunk % n_z)
        voxels = [at + start for at, start in zip(within, starts, strict=True)]
        # Numbers, not tensors of them: these would have to be copied to the device at each call.
        local = [
            (at.double() - (n - 1) / 2) * spacing
            for at, n, spacing in zip(voxels, self.grid.shape, self.grid.spacing_mm, strict=True)
        ]
        return torch.stack(local).to(next(self.parameters()))


def in_turn(work: Callable[[int], Result], n_items: int, device: torch.device) -> Iterator[Result]:
    """Yield `work(i)` in order; on the CPU computed by as many threads as torch may use, each item by one of them.

    The arrays of a chunk are small: splitting each operation among the cores costs more than it gains. On a GPU one
    thread says what is to be done, in the stream that is current.
    """
    if device.type != "cpu":
        yield from map(work, range(n_items))
        return
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
