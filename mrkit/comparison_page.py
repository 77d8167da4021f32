"""A comparison of methods without a truth as a report shows it: table, pictures, and numbers for a file."""

from __future__ import annotations

from mrkit.comparison import Comparison
from mrkit.pictures import Sections, Window
from mrkit.report import Better, Column, Figure, Row, Table
from mrkit.report_figures import grey_figure

_COLUMNS = (
    Column(
        "Held-out error",
        "noise sd",
        Better.LOWER,
        3,
        "RMS error of brain voxels of the scan that the method had not seen, predicted from its image through the "
        "forward model, in noise sd. A perfect prediction has 1.",
    ),
    Column(
        "against cubic",
        "%",
        Better.LOWER,
        1,
        "The same, relative to cubic interpolation of these voxels from their neighbours in the scan, minus 100 %.",
    ),
    Column(
        "Residual sd",
        "noise sd",
        Better.NEAR_REFERENCE,
        3,
        "Sd of (scan - prediction) / noise sd in the brain. Below 1 the image follows the noise; above, it misses "
        "signal.",
    ),
    Column(
        "Correlation",
        "",
        Better.NEAR_REFERENCE,
        3,
        "Largest correlation of neighbouring residuals over the three axes, with its sign. White residuals have 0.",
    ),
    Column(
        "WM-GM Michelson",
        "",
        Better.NEITHER,
        3,
        "(W - G) / (W + G) over the tissue cores of the result. More is not better.",
    ),
    Column(
        "CNR",
        "",
        Better.NEITHER,
        2,
        "(W - G) over the root mean square of the sd of both cores; smoothing raises it.",
    ),
    Column("Time", "s", Better.NEITHER, 1, "Seconds of the whole image, after the preparation that all share."),
)


def comparison_table(comparison: Comparison) -> Table:
    """Return the table of all methods; the reference row is what a right model of the scan would have."""
    ideal = Row("ideal", (1.0, None, 1.0, 0.0, None, None, None), is_reference=True)
    rows = [
        Row(
            one.name,
            (
                one.held_out,
                100 * (one.held_out / comparison.rms_cubic - 1),
                one.residual.sd,
                max((axis[0] for axis in one.residual.autocorrelation), key=abs),
                one.michelson,
                one.cnr,
                one.seconds,
            ),
        )
        for one in comparison.judged
    ]
    note = (
        f"no truth is known: judged by {comparison.n_voxels} held-out voxels, which cubic interpolation predicts "
        f"within {comparison.rms_cubic:.2f} noise sd, and by residuals"
    )
    return Table("All methods on this scan", _COLUMNS, (ideal, *rows), note)


def comparison_figures(comparison: Comparison, planes: Sections, window: Window) -> tuple[Figure, ...]:
    """Return one row of pictures for each method, all in the same window."""
    return tuple(grey_figure(one.name, one.text, one.image, planes, window) for one in comparison.judged)


def comparison_json(comparison: Comparison) -> dict[str, object]:
    """Return the numbers of the table by method and column, with units."""
    table = comparison_table(comparison)
    names = [f"{column.name} ({column.unit})" if column.unit else column.name for column in table.columns]
    return {
        "held_out_voxels": comparison.n_voxels,
        "cubic_interpolation_of_them": comparison.rms_cubic,
        "methods": {row.name: dict(zip(names, row.values, strict=True)) for row in table.rows if not row.is_reference},
        "definitions": {column.name: column.definition for column in table.columns},
    }
