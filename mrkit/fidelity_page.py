"""The page of `mrkit fidelity`: errors by method, plots of what was measured, pictures. Data in, text out."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from mrcore.volume import Volume
from mrkit.pictures import intensity_picture, sections, window_of
from mrkit.plots import BarPlot, Bars, Line, LinePlot, bar_svg, line_svg
from mrkit.report import Better, Column, InputFile, Row, Table, best_rows, format_number
from ulfsim.fidelity import FidelityErrors, common_colour_method, common_noise_method
from ulfsim.scan_facts import AXES, ScanFacts

REAL_COLOUR = "#16191d"
# Okabe & Ito (2008), told apart by colour-blind readers too; the simulation in the colour of the page.
METHOD_COLOURS = ("#0b6b62", "#e69f00", "#cc79a7", "#56b4e9", "#d55e00")
_AXIS_NAMES = {"R": "left-right", "A": "back-front", "S": "foot-head"}
_ERROR_COLUMNS = (
    Column(
        "SNR", "", Better.LOWER, 3, "Mean over CSF, GM and WM of |SNR - SNR of the real scan| / SNR of the real scan."
    ),
    Column(
        "|ln SNR|", "", Better.LOWER, 3, "Mean over tissues of |ln(SNR / SNR of the real scan)|: 0.69 is a factor 2."
    ),
    Column(
        "CNR", "", Better.LOWER, 3, "Mean over the three pairs of tissues of |CNR - CNR real| / |CNR real|, with sign."
    ),
    Column(
        "Spectrum",
        "dB",
        Better.LOWER,
        2,
        "Log-spectral distance of the noise: RMS over axes and frequencies of 10 log10 of the ratio of both power "
        "spectra, each relative to its mean. The colour of the noise, not its level.",
    ),
    Column(
        "Edges R", "", Better.LOWER, 3, "|w - w real| / w real of the FWHM w of the line spread along that body axis."
    ),
    Column(
        "Edges A", "", Better.LOWER, 3, "|w - w real| / w real of the FWHM w of the line spread along that body axis."
    ),
    Column(
        "Edges S", "", Better.LOWER, 3, "|w - w real| / w real of the FWHM w of the line spread along that body axis."
    ),
    Column(
        "Histogram",
        "WM",
        Better.LOWER,
        3,
        "1-Wasserstein distance of intensities in the brain, in units of the mean of white matter.",
    ),
    Column(
        "NCC",
        "",
        Better.HIGHER,
        3,
        "Pearson correlation in the brain after rigid registration, mean over pairs of the same person; none where no "
        "person was scanned on both sides.",
    ),
)


@dataclass(frozen=True, eq=False)
class Pictured:
    """One scan to be shown, with its brain mask (bool, on its grid)."""

    title: str
    volume: Volume
    mask: Tensor


@dataclass(frozen=True, eq=False)
class MethodResult:
    """Scans made by one method: facts of each, their mean, its errors, and those by person who is on both sides."""

    name: str
    facts: tuple[ScanFacts, ...]
    mean: ScanFacts
    errors: FidelityErrors
    pairs: Mapping[str, FidelityErrors] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ContrastResult:
    """Everything about scans of one weighting."""

    weighting: str
    real: tuple[ScanFacts, ...]
    real_mean: ScanFacts
    methods: tuple[MethodResult, ...]
    pictures: tuple[Pictured, ...] = ()


@dataclass(frozen=True, eq=False)
class FidelityResult:
    """All of a comparison, as its page tells it."""

    contrasts: tuple[ContrastResult, ...]
    notes: tuple[str, ...] = ()
    inputs: tuple[InputFile, ...] = ()
    parameters: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def build_fidelity_page(result: FidelityResult) -> str:
    """Return the page as HTML text: nothing is fetched, the same result gives the same text."""
    environment = Environment(
        loader=PackageLoader("mrkit", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("fidelity.html.j2").render(
        result=result,
        sections=[_section(contrast) for contrast in result.contrasts],
        definitions={c.definition: _sharing(c) for c in _ERROR_COLUMNS},
        n_real=sum(len(c.real) for c in result.contrasts),
        n_simulated=sum(len(c.methods[0].facts) for c in result.contrasts),
    )


def error_table(contrast: ContrastResult) -> Table:
    """Return the errors of the group means, one row per method."""
    return Table(
        f"Errors against {_number(len(contrast.real))} real scan{'s' if len(contrast.real) > 1 else ''}",
        _ERROR_COLUMNS,
        tuple(Row(f"{m.name} ({len(m.facts)})", error_values(m.errors)) for m in contrast.methods),
        "of group means; 0 is perfect",
    )


def error_values(errors: FidelityErrors) -> tuple[float | None, ...]:
    """Return the errors in the order of the columns."""
    plain = (errors.snr, errors.snr_log, errors.cnr, errors.spectrum_db, *errors.edge_spread, errors.histogram)
    return (*(None if math.isnan(value) else value for value in plain), errors.ncc)


def pair_table(contrast: ContrastResult) -> Table | None:
    """Return the errors person by person; None where no person is on both sides."""
    rows = [Row(f"{name}, {m.name}", error_values(e)) for m in contrast.methods for name, e in m.pairs.items()]
    return Table("Errors by person", _ERROR_COLUMNS, tuple(rows), "same person on both sides") if rows else None


def measured_table(contrast: ContrastResult) -> Table:
    """Return what was measured, means over scans, with the estimator of noise that the real scans ask for."""
    method = contrast.real_mean.noise_method
    names = tuple(contrast.real_mean.own_contrast.snr)
    pairs = tuple(contrast.real_mean.own_contrast.cnr)
    columns = (
        *(Column(f"SNR {name}", digits=1) for name in names),
        *(Column(f"CNR {pair}", digits=1) for pair in pairs),
        *(Column(f"Edge {axis}", "mm", digits=2) for axis in AXES),
    )

    def row(name: str, facts: ScanFacts, *, is_reference: bool = False) -> Row:
        contrast_facts = facts.contrast.get(method, facts.own_contrast)
        values = (*contrast_facts.snr.values(), *contrast_facts.cnr.values(), *facts.edge_spread_mm)
        return Row(name, values, is_reference)

    rows = [row("Real", contrast.real_mean, is_reference=True), *(row(m.name, m.mean) for m in contrast.methods)]
    how = {"background": "air", "residual": "second differences in tissue"}.get(method, method)
    return Table("Measured", columns, tuple(rows), f"means over scans; noise from {how}, where the image allows it")


@dataclass(frozen=True)
class _Section:
    title: str
    tables: tuple[Markup, ...]
    plots: tuple[tuple[str, Markup], ...]
    rows: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]


def _section(contrast: ContrastResult) -> _Section:
    tables = [error_table(contrast), measured_table(contrast)]
    if (by_person := pair_table(contrast)) is not None:
        tables.append(by_person)
    plots: list[tuple[str, Markup]] = [(p.title, bar_svg(p)) for p in bar_plots(contrast)]
    plots += [(p.title, line_svg(p)) for p in line_plots(contrast)]
    rows = tuple(_picture_row(p) for p in contrast.pictures)
    return _Section(contrast.weighting, tuple(map(_table_html, tables)), tuple(plots), rows)


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


def _picture_row(pictured: Pictured) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    window = window_of(pictured.volume, pictured.mask)
    shown = tuple(
        (_data_uri(intensity_picture(pictured.volume, plane, window)), f"{pictured.title}: {plane.caption}")
        for plane in sections(pictured.volume.grid, pictured.mask)
    )
    size = " \N{MULTIPLICATION SIGN} ".join(f"{s:.3g}" for s in pictured.volume.grid.spacing_mm)
    return pictured.title, f"{size} mm; window {window.low:.3g} to {window.high:.3g}", shown


def _table_html(table: Table) -> Markup:
    best = [best_rows(table, c) for c in range(len(table.columns))]
    head = Markup("").join(
        Markup('<th scope="col">{}<small>{} {}</small></th>').format(c.name, c.unit, c.better.value)
        for c in table.columns
    )
    body = Markup("").join(_row_html(row, table, best, i) for i, row in enumerate(table.rows))
    return Markup(
        '<div class="scroll"><table style="--columns: {}"><caption>{}<span>{}</span></caption>'
        '<thead><tr><th scope="col"></th>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(len(table.columns), table.title, table.note, head, body)


def _row_html(row: Row, table: Table, best: Sequence[frozenset[int]], index: int) -> Markup:
    cells = Markup("").join(
        Markup('<td class="best">{}</td>' if index in best[c] else "<td>{}</td>").format(
            format_number(value, table.columns[c].digits)
        )
        for c, value in enumerate(row.values)
    )
    kind = Markup(' class="reference"') if row.is_reference else ""
    return Markup('<tr{}><th scope="row">{}</th>{}</tr>').format(kind, row.name, cells)


def _sharing(column: Column) -> str:
    return ", ".join(c.name for c in _ERROR_COLUMNS if c.definition == column.definition)


def _number(n: int) -> str:
    return str(n)


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
