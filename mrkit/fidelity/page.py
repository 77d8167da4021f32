"""The page of `mrkit fidelity`: errors by method, plots of what was measured, pictures. Data in, text out."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mrkit.fidelity.plots import bar_plots, line_plots
from mrkit.fidelity.result import ContrastResult, FidelityResult, Pictured
from mrkit.files.provenance import Record
from mrkit.report.pictures import intensity_picture, sections, window_of
from mrkit.report.plots import BarPlot, LinePlot
from mrkit.report.report import (
    Better,
    Column,
    Fact,
    MarkedTable,
    Report,
    Row,
    Table,
    build_page,
    definitions_of,
    marked,
)
from mrkit.report.words import size_text
from ulfsim.measurement.facts import AXES, ScanFacts
from ulfsim.measurement.fidelity import FidelityErrors

_MOST_ROWS = 24
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


def fidelity_page(result: FidelityResult, record: Record) -> str:
    """Return the page as HTML text: nothing is fetched, the same result gives the same text."""
    n_simulated = sum(len(contrast.methods[0].facts) for contrast in result.contrasts)
    report = Report(
        title="Fidelity of simulated scans",
        summary="How close simulated ultra-low-field scans are to real ones, beside plain degradations of the same "
        "high-field images. Tissues were found in every scan itself and everything was measured by the same estimators "
        "on both sides.",
        record=record,
        facts=(
            Fact("Simulated scans", str(n_simulated)),
            Fact("Real scans", str(sum(len(contrast.real) for contrast in result.contrasts))),
            Fact("Contrasts", ", ".join(contrast.weighting for contrast in result.contrasts)),
        ),
    )
    sections = [_section(contrast) for contrast in result.contrasts]
    definitions = definitions_of([table.table for section in sections[:1] for table in section.tables])
    return build_page(report, "fidelity.html.j2", {"sections": sections, "definitions": definitions})


def error_table(contrast: ContrastResult) -> Table:
    """Return the errors of the group means, one row per method."""
    return Table(
        f"Errors against {len(contrast.real)} real scan{'s' if len(contrast.real) > 1 else ''}",
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


def scan_table(contrast: ContrastResult) -> Table | None:
    """Return the errors scan by scan; None where they are as many as methods, or too many to be read."""
    rows = [Row(name, error_values(e)) for m in contrast.methods for name, e in m.each.items()]
    if not len(contrast.methods) < len(rows) <= _MOST_ROWS:
        return None
    return Table("Errors scan by scan", _ERROR_COLUMNS, tuple(rows), "each against the mean of the real scans")


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
    tables: tuple[MarkedTable, ...]
    bars: tuple[BarPlot, ...]
    lines: tuple[LinePlot, ...]
    rows: tuple[tuple[str, str, tuple[tuple[bytes, str], ...]], ...]


def _section(contrast: ContrastResult) -> _Section:
    tables = [error_table(contrast), measured_table(contrast)]
    tables += [table for table in (scan_table(contrast), pair_table(contrast)) if table is not None]
    rows = tuple(_picture_row(pictured) for pictured in contrast.pictures)
    shown = tuple(map(marked, tables))
    return _Section(contrast.weighting, shown, bar_plots(contrast), line_plots(contrast), rows)


def _picture_row(pictured: Pictured) -> tuple[str, str, tuple[tuple[bytes, str], ...]]:
    window = window_of(pictured.volume, pictured.mask)
    shown = tuple(
        (intensity_picture(pictured.volume, plane, window), f"{pictured.title}: {plane.caption}")
        for plane in sections(pictured.volume.grid, pictured.mask)
    )
    text = f"{size_text(pictured.volume.grid)}; window {window.low:.3g} to {window.high:.3g}"
    return pictured.title, text, shown
