"""The plots of `mrkit measure`: edge profiles, noise spectra, and intensities by tissue."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mrkit.measurement.measured import Measured
from mrkit.report.plots import Line, LinePlot
from ulfsim.measurement.edge_spread import FWHM_PER_SD
from ulfsim.measurement.spectrum import NoiseSpectrum

ACCENT, FITTED, NOMINAL = "#0b6b62", "#c2571a", "#8a929c"
# As in the pictures, but white matter darker: lines stand on white.
_TISSUE_LINES = ("#56b4e9", "#e69f00", "#5b636e", "#009e73", "#cc79a7")
_AXIS_NAMES = {"R": "left-right", "L": "left-right", "A": "back-front", "P": "back-front"}
_N_BINS = 100


def axis_name(letter: str) -> str:
    """Return the body axis of an orientation letter, in words."""
    return _AXIS_NAMES.get(letter, "foot-head")


def edge_plots(found: Measured) -> tuple[LinePlot, ...]:
    """Return, per axis with a profile, the mean border, the fitted one, and what a plain voxel would make of a step."""
    return tuple(_edge_plot(found, axis) for axis in range(3) if found.edges.profiles[axis][0])


def spectrum_plots(found: Measured) -> tuple[LinePlot, ...]:
    """Return the noise spectrum per axis beside white noise and the fitted kernel; none where there is no spectrum."""
    if found.spectrum is None:
        return ()
    return tuple(_spectrum_plot(found.spectrum, axis, found.orientation[axis]) for axis in range(3))


def histogram_plot(found: Measured) -> LinePlot:
    """Return the share of the brain by intensity and tissue, with the mean of each core as a dashed line."""
    mask = found.tissues.mask
    values = found.volume.data[mask].double().numpy()
    bins = intensity_bins(values)
    middle = tuple(((bins[1:] + bins[:-1]) / 2).tolist())
    lines, means = [], []
    counts = [np.histogram(values, bins, weights=p[mask].double().numpy())[0] for p in found.tissues.prob]
    shares = [100 * count / values.size for count in counts]
    highest = float(max(share.max() for share in shares))
    for i, name in enumerate(found.tissues.names):
        colour = _TISSUE_LINES[i % len(_TISSUE_LINES)]
        lines.append(Line(name, middle, tuple(shares[i].tolist()), colour))
        mean = found.contrast.mean_of(name)
        means.append(Line("", (mean, mean), (0.0, highest), colour, dashed=True))
    title = "Intensities by tissue; dashed: signal in the core"
    return LinePlot(title, "intensity", "% of the brain per bin", (*lines, *means))


def intensity_bins(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return about 100 bin edges from 0 to the brightest values, the brightest 0.1 % left out.

    Images of whole numbers get as many levels in every bin: otherwise the histogram would look like a comb.
    """
    levels = np.unique(values)
    step = float(np.diff(levels).min()) if levels.size > 1 else 1.0
    low, high = min(0.0, float(levels[0])), float(np.quantile(values, 0.999))
    width = step * max(1, round((high - low) / _N_BINS / step))
    n_bins = max(1, math.ceil((high - low) / width))
    return np.asarray(low - step / 2 + width * np.arange(n_bins + 1), np.float64)


def _edge_plot(found: Measured, axis: int) -> LinePlot:
    at_mm, height = found.edges.profiles[axis]
    fwhm_mm, voxel_mm = found.edges.fwhm_mm[axis], found.edges.voxel_mm[axis]
    name = axis_name(found.orientation[axis])
    reach = max(abs(at_mm[0]), abs(at_mm[-1]), voxel_mm)
    ramp = ((-reach, -voxel_mm / 2, voxel_mm / 2, reach), (0.0, 0.0, 1.0, 1.0))
    lines = [Line("measured", at_mm, height, ACCENT), Line(f"voxel {voxel_mm:.3g} mm", *ramp, NOMINAL, dashed=True)]
    if not math.isfinite(fwhm_mm):
        title = f"Edge spread, {name}: too few edges for a width"
    else:
        x = tuple(np.linspace(-reach, reach, 81).tolist())
        # The width of edges between whole voxels may be fitted as 0: a step.
        sd_mm = max(fwhm_mm, 1e-6 * voxel_mm) / FWHM_PER_SD
        y = tuple(0.5 * (1 + math.erf(each / sd_mm / math.sqrt(2))) for each in x)
        lines.insert(1, Line(f"fitted, FWHM {fwhm_mm:.2f} mm", x, y, FITTED, dashed=True))
        title = f"Edge spread, {name}: {fwhm_mm:.2f} mm, {fwhm_mm / voxel_mm:.2f} voxels"
    return LinePlot(title, "mm across an edge", "edge response", tuple(lines))


def _spectrum_plot(spectrum: NoiseSpectrum, axis: int, letter: str) -> LinePlot:
    k, power, fwhm_mm = spectrum.k_cyc_per_mm[axis], spectrum.power[axis], spectrum.fwhm_mm[axis]
    lines = [Line("measured", k, power, ACCENT), Line("white", (k[0], k[-1]), (1.0, 1.0), NOMINAL, dashed=True)]
    known = math.isfinite(fwhm_mm)
    if known:
        kernel = np.exp(-np.square(2 * math.pi * fwhm_mm / FWHM_PER_SD * np.array(k)))
        lines.insert(1, Line("of that kernel", k, tuple((kernel / kernel.mean()).tolist()), FITTED, dashed=True))
    width = f"kernel {fwhm_mm:.2f} mm" if known else "too short to tell a kernel"
    return LinePlot(f"Noise spectrum, {axis_name(letter)}: {width}", "cycles per mm", "power", tuple(lines))
