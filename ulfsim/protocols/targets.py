"""Target SNRs as a distribution: of one protocol, of one real scan, or of many, from which simulations draw.

SNRs are positive and vary by factors, so their logarithms are taken to be normal, jointly over the tissues: scans of
one person share coil and noise, and a distribution per tissue would draw contrasts that no scan has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from mrcore.errors import BadInputError
from mrcore.random import seeded

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TargetSnr:
    """A log-normal distribution of the SNRs (signal over noise sd per real channel) of the tissues `names`.

    Attributes:
        names: tissues.
        mean_log: mean of log SNR per tissue.
        covariance_log: covariance (T, T) of log SNR; 0 where there is one scan.
        n_scans: scans that it rests on; 0 for numbers and presets.
        sources: where the numbers come from.
    """

    names: tuple[str, ...]
    mean_log: tuple[float, ...]
    covariance_log: tuple[tuple[float, ...], ...]
    n_scans: int
    sources: tuple[str, ...]

    def __post_init__(self) -> None:
        covariance = np.array(self.covariance_log, np.float64)
        n = len(self.names)
        if n == 0 or len(set(self.names)) != n or len(self.mean_log) != n or covariance.shape != (n, n):
            raise BadInputError(
                f"{n} tissues need one mean each and a covariance ({n}, {n}), got {self.names}, {self.mean_log} and "
                f"{covariance.shape}"
            )
        if not (np.isfinite(self.mean_log).all() and np.isfinite(covariance).all()):
            raise BadInputError("mean and covariance of log SNR must be finite")
        lowest, highest = np.linalg.eigvalsh(covariance)[[0, -1]]
        if not np.allclose(covariance, covariance.T) or lowest < -1e-9 * max(highest, 1e-300):
            raise BadInputError("a covariance is symmetric and has no negative variance in any direction")

    @property
    def median(self) -> Mapping[str, float]:
        """The SNR per tissue in the middle of the distribution: that of the one scan where there is one."""
        return _named(self.names, np.array(self.mean_log))

    @property
    def spread(self) -> Mapping[str, float]:
        """Standard deviation of log SNR per tissue; 0.1 is about 10 %."""
        variance = np.array(self.covariance_log, np.float64).diagonal()
        return MappingProxyType({name: math.sqrt(max(v, 0.0)) for name, v in zip(self.names, variance, strict=True)})

    def draw(self, seed: int, key: str) -> Mapping[str, float]:
        """Return one SNR per tissue; the same `seed` and `key` give the same numbers."""
        values, vectors = np.linalg.eigh(np.array(self.covariance_log, np.float64))
        # The symmetric root does not depend on the signs that a library gives to eigenvectors.
        root = vectors * np.sqrt(values.clip(0)) @ vectors.T
        normal = torch.randn(len(self.names), generator=seeded(seed, f"ulfsim.targets:{key}"), dtype=torch.float64)
        return _named(self.names, np.array(self.mean_log) + root @ normal.numpy())


def target_snr(snr: Mapping[str, float], spread: float = 0.0, common_spread: float = 0.0) -> TargetSnr:
    """Return a distribution around `snr` (tissue -> SNR).

    `spread` is the standard deviation of log SNR of each tissue on its own, `common_spread` that of one factor for
    all, as another noise gives: it keeps the contrast.

    Raises:
        BadInputError: SNRs that are not positive, or a negative spread.
    """
    if not snr or not all(0 < value < math.inf for value in snr.values()):
        raise BadInputError(f"a target needs a positive SNR for each tissue, got {dict(snr)}")
    if not (0 <= spread < math.inf and 0 <= common_spread < math.inf):
        raise BadInputError(f"a spread must not be negative, got {spread} and {common_spread}")
    n = len(snr)
    covariance = spread**2 * np.eye(n) + common_spread**2 * np.ones((n, n))
    return _target(tuple(snr), np.log(list(snr.values())), covariance, 0, ("given as numbers",))


def from_snrs(scans: Sequence[Mapping[str, float]], sources: Sequence[str] = ()) -> TargetSnr:
    """Return the distribution of the SNRs (tissue -> SNR) of real scans; `sources` names them.

    One scan has no spread. For n >= 2 scans and T tissues the sample covariance S (over n - 1) is shrunk towards its
    diagonal, (1 - w) S + w diag(S) with w = T / (T + n - 1): the posterior mean of a normal covariance whose inverse
    Wishart prior is worth T scans with independent tissues. Two scans alone would make all tissues one factor.

    Raises:
        BadInputError: no scan, scans of different tissues, or an SNR that is 0 or infinite.
    """
    if not scans:
        raise BadInputError("targets need at least one measured scan, got none")
    names = tuple(scans[0])
    if any(sorted(each) != sorted(names) for each in scans):
        raise BadInputError(f"all scans must have the same tissues, got {[list(each) for each in scans]}")
    if sources and len(sources) != len(scans):
        raise BadInputError(f"{len(scans)} scans need as many sources, got {len(sources)}")
    snr = np.array([[each[name] for name in names] for each in scans])
    if not ((snr > 0) & np.isfinite(snr)).all():
        raise BadInputError(
            f"an SNR of 0 or infinity cannot be a target (tissues {names}, SNRs {snr.tolist()}); check masks and noise"
        )
    logs, n = np.log(snr), len(scans)
    covariance = np.zeros((len(names), len(names)))
    if n > 1:
        covariance = np.atleast_2d(np.cov(logs, rowvar=False))
        weight = len(names) / (len(names) + n - 1)
        covariance = (1 - weight) * covariance + weight * np.diag(covariance.diagonal())
    origins = tuple(sources) or tuple(f"scan {i + 1} of {n}" for i in range(n))
    return _target(names, logs.mean(0), covariance, n, origins)


def _target(
    names: tuple[str, ...], mean: Array, covariance: Array, n_scans: int, sources: tuple[str, ...]
) -> TargetSnr:
    rows = tuple(tuple(float(v) for v in row) for row in covariance)
    return TargetSnr(names, tuple(float(v) for v in mean), rows, n_scans, sources)


def _named(names: tuple[str, ...], logs: Array) -> Mapping[str, float]:
    return MappingProxyType({name: math.exp(value) for name, value in zip(names, logs, strict=True)})
