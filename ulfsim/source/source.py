"""Source: the object of a simulation, split into the parts that one gain each acts on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property

from torch import Tensor

from mrcore.data.brief import Brief
from mrcore.data.volume import TissueMap, Volume, require_same_grid
from mrcore.errors import BadInputError
from mrcore.noise_estimate import NoiseEstimate, background_noise
from ulfsim.measurement.contrast import tissue_cores
from ulfsim.source.shares import signal_shares
from ulfsim.source.window import Window, bounding_box, inner_tissues, true_voxels

_N_FOR_NOISE = 1_000_000


@dataclass(frozen=True, eq=False, repr=False)
class Source(Brief):
    """What is scanned: `truth_of` adds its parts, each times a gain.

    `source_of` splits an image by tissue. Any other parts will do as well, such as synthetic contrast from tissue
    maps: the gains are linear in them, and nothing asks that the parts add up to `volume`.

    Attributes:
        volume: the real image (X, Y, Z) that the parts were made from; its noise, grid and file are the source's.
        tissues: tissue maps on its grid: where the tissues' signals are measured.
        basis: one part per tissue (T, x, y, z), not negative, on `window`; nothing of a tissue lies outside of it.
        rest: what no tissue covers (X, Y, Z), not negative: skull, scalp, air.
        window: three slices of the grid, with integer ends, around all tissues.
        synthetic: whether the parts were made for another order of the tissues than the image has.

    Raises:
        GridMismatchError: an image and tissues on different grids.
        BadInputError: parts whose shapes or devices do not fit the image, or a complex image.
    """

    volume: Volume
    tissues: TissueMap
    basis: Tensor
    rest: Tensor
    window: Window
    synthetic: bool = False

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

    def with_basis(self, basis: Tensor) -> Source:
        """Return a source of the same image and tissues with other parts; what is known of the tissues is kept."""
        out = replace(self, basis=basis)
        given = {field.name for field in fields(self)}
        vars(out).update({name: value for name, value in vars(self).items() if name not in given})
        return out

    @cached_property
    def inner_tissues(self) -> TissueMap:
        """The tissue maps on `window` alone."""
        return inner_tissues(self.tissues, self.window)

    @cached_property
    def cores(self) -> tuple[Tensor, ...]:
        """One core per tissue (x, y, z, bool) on `window`."""
        return tissue_cores(self.inner_tissues)[0]

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """Mean of the image in the core of each tissue."""
        return self.core_means(self.volume.data)

    def core_means(self, image: Tensor) -> tuple[float, ...]:
        """Return the mean of an image (X, Y, Z) on the source's grid in the core of each tissue."""
        inner = image[self.window].reshape(-1)
        return tuple(float(inner.index_select(0, voxels).double().mean()) for voxels in self._core_voxels)

    @cached_property
    def _core_voxels(self) -> tuple[Tensor, ...]:
        return tuple(true_voxels(core) for core in self.cores)

    @cached_property
    def n_negative(self) -> int:
        """How many voxels of the image are negative."""
        return int((self.volume.data < 0).count_nonzero()) if float(self.volume.data.min()) < 0 else 0

    @cached_property
    def air_noise(self) -> NoiseEstimate | None:
        """The noise of the image as its air shows it, from about a million voxels; None where there is no air."""
        step = max(1, round((self.volume.data.numel() / _N_FOR_NOISE) ** (1 / 3)))
        thinned = (slice(None, None, step),) * 3
        mask = self.tissues.prob[(slice(None), *thinned)].sum(0) > 0.5
        return background_noise(self.volume.data[thinned], mask)


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
    window = bounding_box(tissues.prob)
    whole = volume.data.clamp_min(0)
    covered = whole[window]
    unsplit = Source(volume, tissues, covered.expand(len(tissues.names), *covered.shape), whole, window)
    inner = unsplit.inner_tissues
    basis = signal_shares(volume, inner, window, unsplit.levels).to(whole.dtype).mul_(covered)
    covered.mul_((1 - inner.prob.sum(0)).clamp_min_(0))  # what remains is the rest
    return unsplit.with_basis(basis)


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
