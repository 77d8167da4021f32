"""How close simulated scans are to real ones: errors between the facts of both."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from mrcore.data.grid import Triple
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.noise_estimate import BACKGROUND, RESIDUAL
from mrcore.spatial.registration import RegisterSettings, register
from mrcore.spatial.resampling import ResampleOp
from ulfsim.measurement.facts import ScanFacts


@dataclass(frozen=True)
class FidelityErrors:
    """Errors of a simulated scan, or group of scans, against a real one; 0 is perfect. `compare` defines each.

    Attributes:
        noise_method: by which the noise under SNR and CNR was measured, on both sides.
        snr: mean over tissues of |SNR_sim - SNR_real| / SNR_real.
        snr_log: mean over tissues of |ln(SNR_sim / SNR_real)|.
        cnr: mean over pairs of tissues of |CNR_sim - CNR_real| / |CNR_real|.
        spectrum_db: log-spectral distance of the noise's colour; nan where one of them was not measured.
        edge_spread: |w_sim - w_real| / w_real of the line spread's FWHM along R, A and S; nan where not measured.
        histogram: 1-Wasserstein distance of brain intensities relative to WM.
        ncc: Pearson correlation with the real scan of the same person; None where there is none. The only figure here
            of which more is better.
    """

    noise_method: str
    snr: float
    snr_log: float
    cnr: float
    spectrum_db: float
    edge_spread: Triple
    histogram: float
    ncc: float | None = None

    @property
    def edge_spread_mean(self) -> float:
        """Mean of the edge spread error over the axes where it was measured."""
        return _mean(e for e in self.edge_spread if not math.isnan(e))


def compare(sim: ScanFacts, real: ScanFacts, ncc: float | None = None) -> FidelityErrors:
    """Return the errors of `sim` against `real`.

    SNR and CNR of both are measured with noise from the same method: that of the real scan, or residuals where the
    simulated one has no air. Relative errors of SNR and CNR are named as in the study of OpenNeuro ds006557 (23
    persons; its code was not to be found, its printed values fit |sim - real| / real); |ln ratio| counts half and
    double alike. The log-spectral distance is the RMS over axes and frequencies of 10 log10 of the ratio of both
    spectra, each relative to its mean over the band that both have (Gray & Markel, IEEE ASSP 1976;24:380). Histograms
    are compared by the 1-Wasserstein distance of intensities relative to WM: 0.1 means that intensities are off by
    10 % of WM on average.

    Raises:
        BadInputError: no tissue, or no way to measure noise, that both have.
    """
    method = common_noise_method(sim, real)
    ours, theirs = sim.contrast[method], real.contrast[method]
    names = [name for name in theirs.snr if name in ours.snr]
    if not names:
        raise BadInputError(f"{sim.name} and {real.name} have no tissue in common")
    return FidelityErrors(
        method,
        _mean(_relative(ours.snr[name], theirs.snr[name]) for name in names),
        _mean(_log_ratio(ours.snr[name], theirs.snr[name]) for name in names),
        _mean(_relative(ours.cnr[pair], theirs.cnr[pair]) for pair in theirs.cnr if pair in ours.cnr),
        log_spectral_distance_db(sim, real),
        cast("Triple", tuple(map(_relative, sim.edge_spread_mm, real.edge_spread_mm))),
        float(wasserstein_distance(sim.quantiles, real.quantiles)),
        ncc,
    )


def common_noise_method(sim: ScanFacts, real: ScanFacts) -> str:
    """Return the noise method that serves both scans: that of the real one if possible, else residuals.

    Raises:
        BadInputError: none serves both.
    """
    for method in (real.noise_method, RESIDUAL, BACKGROUND):
        if method in sim.contrast and method in real.contrast:
            return method
    raise BadInputError(f"the noise of {sim.name} and {real.name} cannot be measured in the same way")


def common_colour_method(sim: ScanFacts, real: ScanFacts) -> str | None:
    """Return the method of noise colour that serves both scans; None where none does."""
    return next((m for m in (real.colour_method, RESIDUAL) if m in sim.colour and m in real.colour), None)


def log_spectral_distance_db(sim: ScanFacts, real: ScanFacts) -> float:
    """Return the log-spectral distance of the colours of two noises in dB, see `compare`; nan without a common one."""
    method = common_colour_method(sim, real)
    if method is None:
        return math.nan
    ours, theirs = sim.colour[method], real.colour[method]
    squares: list[float] = []
    for k_a, a, k_b, b in zip(ours.k_cyc_per_mm, ours.power, theirs.k_cyc_per_mm, theirs.power, strict=True):
        if min(len(k_a), len(k_b)) < 2:
            continue
        k = np.linspace(max(k_a[0], k_b[0]), min(k_a[-1], k_b[-1]), 64)
        ratio = _level_db(np.interp(k, k_a, a)) - _level_db(np.interp(k, k_b, b))
        squares.append(float(np.mean(ratio**2)))
    return math.sqrt(_mean(squares)) if squares else math.nan


def registered_ncc(sim: Volume, real: Volume, real_mask: Tensor) -> float:
    """Return Pearson's correlation in `real_mask` after a rigid registration of `sim` to `real` (same person).

    Raises:
        BadInputError: images that cannot be registered, or are constant in the mask.
    """
    # Rigid and of one contrast: few points and steps find it as well.
    found = register(sim, real, RegisterSettings(dof=6, n_points=6_000, n_steps=30), fixed_mask=real_mask)
    moved = ResampleOp(sim.grid, real.grid, found.motion, sim.data.dtype)(sim.data)
    pair = torch.stack([moved[real_mask], real.data[real_mask].to(moved.dtype)]).double()
    if bool((pair.amax(1) == pair.amin(1)).any()):
        raise BadInputError("an image is constant inside the mask, so no correlation is defined")
    return float(torch.corrcoef(pair)[0, 1])


def errors_to_json(errors: FidelityErrors) -> dict[str, Any]:
    """Return the errors as values for JSON, with the mean of the edge spread error; nan and infinity stay floats."""
    return asdict(errors) | {"edge_spread_mean": errors.edge_spread_mean}


def _level_db(power: np.typing.NDArray[np.float64]) -> np.typing.NDArray[np.float64]:
    # Relative to the mean over the common band: a scan of finer voxels has power beyond it.
    floored = np.maximum(power, 1e-6)
    return np.asarray(10 * np.log10(floored / floored.mean()))


def _relative(value: float, reference: float) -> float:
    if math.isnan(value) or math.isnan(reference):
        return math.nan
    return abs(value - reference) / abs(reference) if reference else (0.0 if value == 0 else math.inf)


def _log_ratio(value: float, reference: float) -> float:
    return (
        abs(math.log(value / reference)) if value > 0 and reference > 0 else (0.0 if value == reference else math.inf)
    )


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else math.nan
