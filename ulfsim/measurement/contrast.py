"""Contrast of a scan: mean, SNR and CNR per tissue, with the bias of Rician magnitudes removed."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from scipy.stats import t as student_t
from torch import Tensor

from mrcore.data.volume import TissueMap, Volume, require_same_grid
from mrcore.errors import BadInputError
from ulfsim.measurement.noise import ScanNoise, eroded, given_noise, noise_core, scan_noise

_BLOCK_MM = 20.0

Interval = tuple[float, float]


@dataclass(frozen=True)
class ContrastStats:
    """Contrast of one image, one entry per tissue in `names`.

    `mean` is the noise-free signal A in the tissue's core, `sd` the spread of magnitudes there (anatomy and noise),
    `noise_sd` the noise per real channel and `noise_method` how it was found; `notes` say where a core was thin.
    `mean_error` is the standard error of each mean, from `n_blocks` independent blocks of the core, and `noise_error`
    that of the noise sd, relative. `ends` are the same at the least and the most noise where it is only bracketed,
    `mixtures` those with other means that `with_mixing` leaves open.
    Intervals hold 95 %: they answer for the core as a sample of its tissue (noise and anatomy) and for the noise
    estimate, its whole bracket included, not for wrong tissue maps.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    n_voxels: tuple[int, ...]
    noise_sd: float
    noise_method: str
    notes: tuple[str, ...] = ()
    mean_error: tuple[float, ...] = ()
    n_blocks: tuple[float, ...] = ()
    noise_error: float = 0.0
    ends: tuple[ContrastStats, ...] = ()
    mixtures: tuple[ContrastStats, ...] = ()

    @property
    def _others(self) -> tuple[ContrastStats, ...]:
        return (*self.ends, *self.mixtures)

    @property
    def noise_range(self) -> Interval:
        """Least and most noise sd that the scan leaves open."""
        every = (self.noise_sd, *(end.noise_sd for end in self.ends))
        return min(every), max(every)

    @property
    def snr(self) -> tuple[float, ...]:
        """Signal over noise sd per real channel, per tissue; infinite where there is no noise."""
        return tuple(_ratio(m, self.noise_sd) for m in self.mean)

    def mean_of(self, name: str) -> float:
        """Return the mean of one tissue."""
        if name not in self.names:
            raise BadInputError(f"no tissue '{name}' was measured; there are {list(self.names)}")
        return self.mean[self.names.index(name)]

    def mean_interval(self, name: str) -> Interval:
        """Return the 95 % interval of the mean of one tissue."""
        mean = self.mean_of(name)
        half = self._t_of(name) * self._error_of(name)
        # Signals are not negative.
        return _hull((max(mean - half, 0.0), mean + half), *(end.mean_interval(name) for end in self._others))

    def snr_interval(self, name: str) -> Interval:
        """Return the 95 % interval of the SNR of one tissue."""
        low, high = self._ratio_interval(self.mean_of(name), self._t_of(name) * self._error_of(name))
        return _hull((max(low, 0.0), high), *(end.snr_interval(name) for end in self._others))

    def cnr_interval(self, a: str, b: str) -> Interval:
        """Return the 95 % interval of `cnr(a, b)`."""
        half = math.hypot(self._t_of(a) * self._error_of(a), self._t_of(b) * self._error_of(b))
        own = self._ratio_interval(self.mean_of(a) - self.mean_of(b), half)
        return _hull(own, *(end.cnr_interval(a, b) for end in self._others))

    def _ratio_interval(self, value: float, half: float) -> Interval:
        ratio = _ratio(value, self.noise_sd)
        if self.noise_sd <= 0:
            return ratio, ratio
        width = math.hypot(half / self.noise_sd, 1.96 * ratio * self.noise_error)
        return ratio - width, ratio + width

    def _error_of(self, name: str) -> float:
        if len(self.mean_error) != len(self.names):
            raise BadInputError("these statistics hold no standard errors; take them from measure()")
        return self.mean_error[self.names.index(name)]

    def _t_of(self, name: str) -> float:
        n_blocks = self.n_blocks[self.names.index(name)] if self.n_blocks else math.inf
        return float(student_t.ppf(0.975, max(n_blocks - 1, 1.0)))

    def cnr(self, a: str, b: str) -> float:
        """Return (A_a - A_b) / noise sd, with its sign."""
        return _ratio(self.mean_of(a) - self.mean_of(b), self.noise_sd)

    def michelson(self, a: str, b: str) -> float:
        """Return (A_a - A_b) / (A_a + A_b), with its sign; 0 where both vanish."""
        total = self.mean_of(a) + self.mean_of(b)
        return (self.mean_of(a) - self.mean_of(b)) / total if total else 0.0


def measure(
    volume: Volume, tissues: TissueMap, noise_sd: float | None = None, noise: ScanNoise | None = None
) -> ContrastStats:
    """Measure `volume` (magnitude, or complex: its magnitude counts) in the cores of `tissues`, on the same grid.

    The noise is that of `scan_noise`, or the `noise` that it gave; `noise_sd` (per real channel) is taken as exact.
    With magnitudes M the signal is
    A^2 = mean(M)^2 + min(var(M), noise_sd^2) - 2 noise_sd^2: this is E[M^2] = A^2 + 2 sd^2 without the variance
    that anatomy adds to M.

    Raises:
        GridMismatchError: tissues on another grid.
        BadInputError: a tissue without any voxel, noise that cannot be estimated, or noise given twice.
    """
    require_same_grid(volume.grid, tissues.grid, "the image and its tissue maps")
    if noise is not None and noise_sd is not None:
        raise BadInputError("give the noise either as noise_sd or as an estimate, not both")
    cores, notes = tissue_cores(tissues)
    if noise_sd is not None:
        noise = given_noise(noise_sd)
    elif noise is None:
        noise = scan_noise(volume, tissues.mask, noise_core(tissues))
    magnitude = volume.data.abs() if volume.data.is_complex() else volume.data
    values = [magnitude[core].double() for core in cores]
    errors = [mean_error(magnitude, core, volume.grid.spacing_mm) for core in cores]

    def stats(sd: float, ends: tuple[ContrastStats, ...] = ()) -> ContrastStats:
        return ContrastStats(
            tissues.names,
            tuple(_signal(v, sd) for v in values),
            tuple(float(v.std(correction=0)) for v in values),
            tuple(v.numel() for v in values),
            sd,
            noise.method,
            (*notes, *noise.notes),
            tuple(error for error, _ in errors),
            tuple(n_blocks for _, n_blocks in errors),
            noise.error,
            ends,
        )

    return stats(noise.sd, (stats(noise.low), stats(noise.high)) if noise.is_bracketed else ())


def mean_error(image: Tensor, core: Tensor, spacing_mm: tuple[float, float, float]) -> tuple[float, float]:
    """Return the standard error of the mean of `image` in `core`, and the number of blocks it comes from.

    Blocks of 20 mm (at least 2 voxels) are taken as independent: the mean is a ratio of sums over blocks, and its
    variance is n / (n - 1) sum_b (s_b - mean n_b)^2 / (sum_b n_b)^2 (Cochran, Sampling Techniques, 1977, sec. 6.4).
    Noise that is correlated over several voxels and slow anatomy are counted in. Blocks of unequal size count as
    (sum n_b)^2 / sum n_b^2. A core within one block falls back on the spread of its voxels.
    """
    place = core.nonzero()
    size = torch.tensor([max(2, round(_BLOCK_MM / s)) for s in spacing_mm])
    shape = [math.ceil(n / int(s)) for n, s in zip(core.shape, size, strict=True)]
    x, y, z = (place // size).unbind(1)
    index = (x * shape[1] + y) * shape[2] + z
    values = image[core].double()
    count = torch.bincount(index).double()
    total = torch.bincount(index, values)
    total, count = total[count > 0], count[count > 0]
    n_blocks = float(count.sum() ** 2 / count.square().sum())
    if count.numel() < 2:
        return float(values.std(correction=0)) / math.sqrt(max(values.numel(), 1)), 1.0
    rest = (total - values.mean() * count).square().sum()
    return math.sqrt(float(rest) * n_blocks / max(n_blocks - 1, 0.5)) / values.numel(), n_blocks


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
        inner, n_core = eroded(core), int(core.count_nonzero())
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


def _hull(*intervals: Interval) -> Interval:
    return min(low for low, _ in intervals), max(high for _, high in intervals)


def _ratio(value: float, sd: float) -> float:
    return value / sd if sd > 0 else math.copysign(math.inf, value)
