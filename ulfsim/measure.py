"""Contrast of a scan: mean, SNR and CNR per tissue, with the bias of Rician magnitudes removed."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.errors import BadInputError
from mrcore.noise_estimate import NoiseEstimate, estimate_noise
from mrcore.volume import TissueMap, Volume, require_same_grid

GIVEN = "given"


@dataclass(frozen=True)
class ContrastStats:
    """Contrast of one image, one entry per tissue in `names`.

    `mean` is the noise-free signal A in the tissue's core, `sd` the spread of magnitudes there (anatomy and noise),
    `noise_sd` the noise per real channel and `noise_method` how it was found; `notes` say where a core was thin.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    n_voxels: tuple[int, ...]
    noise_sd: float
    noise_method: str
    notes: tuple[str, ...] = ()

    @property
    def snr(self) -> tuple[float, ...]:
        """Signal over noise sd per real channel, per tissue; infinite where there is no noise."""
        return tuple(_ratio(m, self.noise_sd) for m in self.mean)

    def mean_of(self, name: str) -> float:
        """Return the mean of one tissue."""
        if name not in self.names:
            raise BadInputError(f"no tissue '{name}' was measured; there are {list(self.names)}")
        return self.mean[self.names.index(name)]

    def cnr(self, a: str, b: str) -> float:
        """Return (A_a - A_b) / noise sd, with its sign."""
        return _ratio(self.mean_of(a) - self.mean_of(b), self.noise_sd)

    def michelson(self, a: str, b: str) -> float:
        """Return (A_a - A_b) / (A_a + A_b), with its sign; 0 where both vanish."""
        total = self.mean_of(a) + self.mean_of(b)
        return (self.mean_of(a) - self.mean_of(b)) / total if total else 0.0


def measure(volume: Volume, tissues: TissueMap, noise_sd: float | None = None) -> ContrastStats:
    """Measure `volume` (real magnitude) in the cores of `tissues`, which lie on the same grid.

    The noise is estimated from the air around the brain, else from second differences in the core with most room;
    `noise_sd` (per real channel) overrides both. With magnitudes M the signal is
    A^2 = mean(M)^2 + min(var(M), noise_sd^2) - 2 noise_sd^2: this is E[M^2] = A^2 + 2 sd^2 without the variance
    that anatomy adds to M.

    Raises:
        GridMismatchError: tissues on another grid.
        BadInputError: complex data, a tissue without any voxel, or noise that cannot be estimated.
    """
    require_same_grid(volume.grid, tissues.grid, "the image and its tissue maps")
    if volume.data.is_complex():
        raise BadInputError("contrast is measured in magnitude images; take the magnitude of this complex volume first")
    cores, notes = tissue_cores(tissues)
    if noise_sd is None:
        roomiest = max(cores, key=lambda core: int(_eroded(core).sum()))
        noise = estimate_noise(volume.data, tissues.mask, roomiest)
        notes = (*notes, noise.message)
    else:
        noise = NoiseEstimate(noise_sd, GIVEN, 0, "")
    values = [volume.data[core].double() for core in cores]
    return ContrastStats(
        tissues.names,
        tuple(_signal(v, noise.sd) for v in values),
        tuple(float(v.std(correction=0)) for v in values),
        tuple(v.numel() for v in values),
        noise.sd,
        noise.method,
        notes,
    )


def tissue_cores(
    tissues: TissueMap, threshold: float = 0.9, n_enough: int = 200, n_least: int = 50
) -> tuple[tuple[Tensor, ...], tuple[str, ...]]:
    """Return one core (X, Y, Z, bool) per tissue, and notes where one is thin.

    The core is where the probability exceeds `threshold`, without its outer voxels if `n_enough` remain, else with
    them if there are `n_least`, else the `n_least` voxels of highest probability.

    Raises:
        BadInputError: a tissue that is nowhere.
    """
    cores, notes = [], []
    for name, prob in zip(tissues.names, tissues.prob, strict=True):
        if float(prob.max()) <= 0:
            raise BadInputError(f"the tissue map has no {name} at all; check the segmentation and its names")
        core = prob > threshold
        inner, n_core = _eroded(core), int(core.count_nonzero())
        if int(inner.count_nonzero()) >= n_enough:
            cores.append(inner)
            continue
        if n_core < n_least:
            n = min(n_least, int((prob > 0).count_nonzero()))
            best = prob.reshape(-1).topk(n)
            core = torch.zeros_like(core).reshape(-1).index_fill(0, best.indices, True).reshape(core.shape)
            notes.append(f"{name}: no core, the {n} voxels of highest probability (from {float(best.values[-1]):.2f})")
        elif n_core < n_enough:
            notes.append(f"{name}: core of only {n_core} voxels")
        cores.append(core)
    return tuple(cores), tuple(notes)


def pairs(names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return the pairs whose contrast counts, later tissue first: (WM, GM), (WM, CSF), (GM, CSF)."""
    return tuple(itertools.combinations(reversed(names), 2))


def _signal(magnitude: Tensor, sd: float) -> float:
    mean, variance = float(magnitude.mean()), float(magnitude.var(correction=0))
    return math.sqrt(max(mean**2 + min(variance, sd**2) - 2 * sd**2, 0.0))


def _eroded(mask: Tensor) -> Tensor:
    """Drop voxels that have one of their six neighbours outside; the edge of the image counts as outside."""
    out = mask.clone()
    for axis in range(3):
        n = mask.shape[axis]
        out.narrow(axis, 1, n - 1).logical_and_(mask.narrow(axis, 0, n - 1))
        out.narrow(axis, 0, n - 1).logical_and_(mask.narrow(axis, 1, n - 1))
        out.select(axis, 0).fill_(False)
        out.select(axis, n - 1).fill_(False)
    return out


def _ratio(value: float, sd: float) -> float:
    return value / sd if sd > 0 else math.copysign(math.inf, value)
