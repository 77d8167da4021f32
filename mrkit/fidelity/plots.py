"""The plots of `mrkit fidelity`: real scans beside each method."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mrkit.fidelity.result import ContrastResult
from mrkit.report.plots import BarPlot, Bars, Line, LinePlot
from ulfsim.measurement.facts import AXES, ScanFacts
from ulfsim.measurement.fidelity import common_colour_method, common_noise_method

REAL_COLOUR = "#16191d"
# Okabe & Ito (2008), told apart by colour-blind readers too; the simulation in the colour of the page.
METHOD_COLOURS = ("#0b6b62", "#e69f00", "#cc79a7", "#56b4e9", "#d55e00")
_AXIS_NAMES = {"R": "left-right", "A": "back-front", "S": "foot-head"}


def bar_plots(contrast: ContrastResult) -> tuple[BarPlot, BarPlot]:
    """Return SNR by tissue and CNR by pair, real beside each method, each pair of bars with one estimator of noise."""
    real = contrast.real_mean.own_contrast

    def plot(title: str, kind: str) -> BarPlot:
        groups: tuple[str, ...] = tuple(getattr(real, kind))
        bars = [_bars("Real", contrast.real, contrast.real_mean.noise_method, kind, groups, REAL_COLOUR)]
        for m, colour in zip(contrast.methods, METHOD_COLOURS, strict=False):
            method = common_noise_method(m.mean, contrast.real_mean)
            bars.append(_bars(m.name, m.facts, method, kind, groups, colour))
        highest = max((abs(v) for v in bars[0].values if v is not None), default=1.0)
        return BarPlot(title, kind.upper(), groups, tuple(bars), limit=2.5 * highest)

    return plot("Signal to noise by tissue", "snr"), plot("Contrast to noise by pair", "cnr")


def line_plots(contrast: ContrastResult) -> tuple[LinePlot, ...]:
    """Return edge spread and noise spectrum per axis, and the histogram of intensities."""
    shown = [("Real", contrast.real_mean, REAL_COLOUR)]
    shown += [(m.name, m.mean, c) for m, c in zip(contrast.methods, METHOD_COLOURS, strict=False)]
    edges = tuple(
        LinePlot(
            f"Edge spread, {_AXIS_NAMES[name]}: {_widths(shown, axis)}",
            "mm across an edge",
            "edge response",
            tuple(Line(title, *facts.edge_profiles[axis], colour) for title, facts, colour in shown),
        )
        for axis, name in enumerate(AXES)
    )
    spectra = tuple(
        LinePlot(
            f"Noise spectrum, {_AXIS_NAMES[name]}",
            "cycles per mm",
            "power relative to white",
            tuple(_spectrum(title, facts, contrast.real_mean, axis, colour) for title, facts, colour in shown),
        )
        for axis, name in enumerate(AXES)
    )
    histogram = LinePlot(
        "Histogram of the brain",
        "intensity relative to white matter",
        "density",
        tuple(_density(title, facts, colour) for title, facts, colour in shown),
    )
    return (histogram, *edges, *spectra)


def _bars(name: str, facts: Sequence[ScanFacts], method: str, kind: str, groups: tuple[str, ...], colour: str) -> Bars:
    entries = [getattr(f.contrast[method], kind) for f in facts if method in f.contrast]
    columns = [[entry[group] for entry in entries if group in entry] for group in groups]
    means = tuple(float(np.mean(c)) if c else None for c in columns)
    return Bars(name, means, tuple(float(np.std(c, ddof=1)) if len(c) > 1 else 0.0 for c in columns), colour)


def _widths(shown: Sequence[tuple[str, ScanFacts, str]], axis: int) -> str:
    found = [f"{name} {facts.edge_spread_mm[axis]:.1f}" for name, facts, _ in shown]
    return ", ".join(text.replace("nan", "\N{EN DASH}") for text in found) + " mm"


def _spectrum(name: str, facts: ScanFacts, real: ScanFacts, axis: int, colour: str) -> Line:
    method = common_colour_method(facts, real)
    if method is None:
        return Line(name, (), (), colour)
    found = facts.colour[method]
    return Line(name, found.k_cyc_per_mm[axis], found.power[axis], colour)


def _density(name: str, facts: ScanFacts, colour: str) -> Line:
    """Return the density of the quantiles, lightly smoothed so that curves of few voxels can be read."""
    at = np.linspace(0, 3, 121)
    width = 0.04
    values = np.exp(-0.5 * ((at[:, None] - np.array(facts.quantiles)) / width) ** 2).mean(1) / (width * 2.5066)
    return Line(name, tuple(at.tolist()), tuple(values.tolist()), colour)
