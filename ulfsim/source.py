"""Source: the object of a simulation, split into the parts that one gain each acts on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mrcore.errors import BadInputError
from mrcore.grid import Shape3, cropped
from mrcore.volume import TissueMap, Volume, require_same_grid
from ulfsim.measure import tissue_cores
from ulfsim.shares import signal_shares

Window = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Source:
    """What is scanned: `truth_of` adds its parts, each times a gain.

    `source_of` splits an image by tissue. Any other parts will do as well, such as synthetic contrast from tissue
    maps: the gains are linear in them, and nothing asks that the parts add up to `volume`.

    Attributes:
        volume: the real image (X, Y, Z) that the parts were made from; its noise, grid and file are the source's.
        tissues: tissue maps on its grid: where the tissues' signals are measured.
        basis: one part per tissue (T, x, y, z), not negative, on `window`; nothing of a tissue lies outside of it.
        rest: what no tissue covers (X, Y, Z), not negative: skull, scalp, air.
        window: three slices of the grid, with integer ends, around all tissues.

    Raises:
        GridMismatchError: an image and tissues on different grids.
        BadInputError: parts whose shapes or devices do not fit the image, or a complex image.
    """

    volume: Volume
    tissues: TissueMap
    basis: Tensor
    rest: Tensor
    window: Window

    def __post_init__(self) -> None:
        require_same_grid(self.volume.grid, self.tissues.grid, "the image and its tissue maps")
        if self.volume.data.is_complex():
            raise BadInputError(
                "a simulation starts from a magnitude image; take the magnitude of this complex volume first"
            )
        expected = (len(self.tissues.names), *(w.stop - w.start for w in self.window))
        if tuple(self.basis.shape) != expected or self.rest.shape != self.volume.data.shape:
            raise BadInputError(
                f"the parts of a source need the shapes {expected} and {self.volume.grid.shape}, got "
                f"{tuple(self.basis.shape)} and {tuple(self.rest.shape)}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The tissues, in the order of `basis`."""
        return self.tissues.names

    @cached_property
    def inner_tissues(self) -> TissueMap:
        """The tissue maps on `window` alone."""
        start = (self.window[0].start, self.window[1].start, self.window[2].start)
        prob = self.tissues.prob[(slice(None), *self.window)]
        shape: Shape3 = (prob.shape[1], prob.shape[2], prob.shape[3])
        return TissueMap(prob, self.names, cropped(self.tissues.grid, start, shape))

    @cached_property
    def cores(self) -> tuple[Tensor, ...]:
        """One core per tissue (x, y, z, bool) on `window`."""
        return tissue_cores(self.inner_tissues)[0]

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """Mean of the image in the core of each tissue."""
        inner = self.volume.data[self.window]
        return tuple(float(inner[core].double().mean()) for core in self.cores)


def source_of(volume: Volume, tissues: TissueMap) -> Source:
    """Split `volume` (real, not negative) by the share of each voxel's signal that each tissue has.

    Negative values, which only interpolation leaves in a magnitude image, become 0.

    Raises:
        GridMismatchError: tissues on another grid.
        BadInputError: a complex image, or a tissue that is nowhere.
    """
    require_same_grid(volume.grid, tissues.grid, "the image and its tissue maps")
    if volume.data.is_complex():
        raise BadInputError(
            "a simulation starts from a magnitude image; take the magnitude of this complex volume first"
        )
    window = _bounding_box(tissues.prob)
    shares = signal_shares(volume, tissues).prob[(slice(None), *window)].to(volume.data.dtype)
    rest = volume.data.clamp_min(0)
    basis = shares * rest[window]
    rest[window] *= (1 - shares.sum(0)).clamp_min(0)
    return Source(volume, tissues, basis, rest, window)


def truth_of(source: Source, gains: Mapping[str, float], background_gain: float) -> Volume:
    """Return the noise-free object of a scan: sum_t gain_t basis_t + background_gain rest.

    Raises:
        BadInputError: gains that do not name the tissues, or are negative.
    """
    if sorted(gains) != sorted(source.names):
        raise BadInputError(f"gains must name the tissues {sorted(source.names)}, got {sorted(gains)}")
    if min(*gains.values(), background_gain) < 0:
        raise BadInputError(f"gains must not be negative, got {dict(gains)} and {background_gain} outside")
    truth = background_gain * source.rest
    inner = truth[source.window]
    for name, part in zip(source.names, source.basis, strict=True):
        inner.add_(part, alpha=gains[name])
    return Volume(truth, source.volume.grid, source.volume.meta)


def _bounding_box(prob: Tensor) -> Window:
    """Return the smallest window that holds every voxel with tissue; the whole where there is none."""
    found = (prob > 0).any(0)
    ends = []
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        at = torch.nonzero(found.any(others[1]).any(others[0]))
        ends.append(slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, found.shape[axis]))
    return ends[0], ends[1], ends[2]
