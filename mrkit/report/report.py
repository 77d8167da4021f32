"""One self-contained HTML page: what was done, pictures, scores, parameters. Data in, text out; nothing is fetched."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mrcore.errors import BadInputError
from mrkit.files.provenance import Record
from mrkit.report.curves import Curve, curve_svg
from mrkit.report.plots import LinePlot, bar_svg, line_svg

_TEMPLATES = Path(__file__).parent / "templates"
_MISSING = "\N{EN DASH}"


class Better(Enum):
    """Which of two values of a column is the better one; the value is the arrow that a reader sees."""

    HIGHER = "\N{UPWARDS ARROW}"
    LOWER = "\N{DOWNWARDS ARROW}"
    NEAR_REFERENCE = "\N{RIGHTWARDS ARROW}\N{NO-BREAK SPACE}reference"
    NEITHER = ""


@dataclass(frozen=True)
class Column:
    """A column of numbers: `digits` after the point; `definition` says exactly what was measured."""

    name: str
    unit: str = ""
    better: Better = Better.NEITHER
    digits: int = 3
    definition: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table: one value per column, None where there is none. A reference takes no part in the contest."""

    name: str
    values: tuple[float | None, ...]
    is_reference: bool = False


@dataclass(frozen=True)
class Table:
    """A table of methods (rows) by figures (columns); the best value of each column is marked.

    Raises:
        BadInputError: a row with another number of values than columns, or two reference rows.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.values) != len(self.columns):
                raise BadInputError(
                    f"row '{row.name}' of table '{self.title}' has {len(row.values)} values, not {len(self.columns)}"
                )
        if sum(row.is_reference for row in self.rows) > 1:
            raise BadInputError(f"table '{self.title}' has more than one reference row")


@dataclass(frozen=True)
class Legend:
    """Colours (CSS) and what they mean; `continuous` draws them as one scale with the labels under it."""

    colours: tuple[str, ...]
    labels: tuple[str, ...]
    continuous: bool = False


@dataclass(frozen=True, eq=False)
class Figure:
    """A row of pictures: one PNG per plane.

    `captions` say what each shows (they become alt texts). `compared` figures share one raster, and a reader may flip
    between them; the one in `focus` is shown first.
    """

    title: str
    text: str
    pictures: tuple[bytes, ...]
    captions: tuple[str, ...]
    legend: Legend | None = None
    compared: bool = False
    focus: bool = False

    def __post_init__(self) -> None:
        if len(self.pictures) != len(self.captions):
            raise BadInputError(
                f"figure '{self.title}' has {len(self.pictures)} pictures, {len(self.captions)} captions"
            )


@dataclass(frozen=True)
class Fact:
    """A figure that a reader looks for first, such as the voxel size or the run time."""

    label: str
    value: str


@dataclass(frozen=True)
class TextTable:
    """A table of text: `head` holds name and unit per column, `rows` a name and one cell per column."""

    title: str
    note: str
    head: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class PlotGroup:
    """Plots under one heading, and what a reader must know of them."""

    title: str
    text: str
    plots: tuple[LinePlot, ...]


@dataclass(frozen=True, eq=False)
class Report:
    """Everything that a page says, in its order.

    Attributes:
        title: of the page.
        summary: what was done, in one or two sentences.
        facts: figures for the head of the page.
        record: how the result came about; its notes stand before the pictures.
        figures: rows of pictures, all with the same planes in the same columns.
        planes: headings of these columns.
        tables: scores; their definitions are listed beneath.
        curves: such as the history of a fit.
        plots: of several lines.
        groups: of plots, each with what a reader must know of them, before the scores.
    """

    title: str
    summary: str
    record: Record
    facts: tuple[Fact, ...] = ()
    figures: tuple[Figure, ...] = ()
    planes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    curves: tuple[Curve, ...] = ()
    plots: tuple[LinePlot, ...] = ()
    groups: tuple[PlotGroup, ...] = ()


def build_page(report: Report, template: str = "report.html.j2", more: Mapping[str, object] | None = None) -> str:
    """Return the page as HTML text; the same report gives the same text.

    Pictures are inside as base64, styles and script are inline, and a content security policy forbids all fetching.
    `template` extends `report.html.j2` and knows the values `more`.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"data_uri": _data_uri, "svg": curve_svg, "lines": line_svg, "bars": bar_svg}
    values: dict[str, object] = {
        "report": report,
        "tables": [marked(table) for table in report.tables],
        "definitions": definitions_of(report.tables),
        "has_contest": any(c.better is not Better.NEITHER for table in report.tables for c in table.columns),
        "parameters": list(_flat(report.record.settings)),
        "compared": [(i, figure) for i, figure in enumerate(report.figures) if figure.compared],
    }
    return environment.get_template(template).render(values | dict(more or {}))


def format_number(value: float | None, digits: int) -> str:
    """Return a number for a reader: fixed digits, a true minus sign, an en dash where there is none."""
    if value is None or math.isnan(value):
        return _MISSING
    if math.isinf(value):
        return "\N{INFINITY}" if value > 0 else "\N{MINUS SIGN}\N{INFINITY}"
    text = f"{value:.{digits}f}"
    # A rounded zero has no sign.
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "\N{MINUS SIGN}")


def best_rows(table: Table, column: int) -> frozenset[int]:
    """Return the rows that hold the best value of a column, all of them in a tie as shown; none without a contest."""
    spec = table.columns[column]
    reference = next((row.values[column] for row in table.rows if row.is_reference), None)
    found: dict[int, float] = {}
    for i, row in enumerate(table.rows):
        value = row.values[column]
        if row.is_reference or value is None or math.isnan(value):
            continue
        # Rounded first: two rows that read the same are equally good to a reader.
        shown = round(value, spec.digits)
        if spec.better is Better.HIGHER:
            found[i] = shown
        elif spec.better is Better.LOWER:
            found[i] = -shown
        elif spec.better is Better.NEAR_REFERENCE and reference is not None:
            found[i] = -round(abs(shown - round(reference, spec.digits)), spec.digits)
    if len(found) < 2:
        return frozenset()
    top = max(found.values())
    return frozenset(i for i, value in found.items() if value == top)


@dataclass(frozen=True)
class Cell:
    """The text of a value, and whether it is the best of its column."""

    text: str
    is_best: bool


@dataclass(frozen=True)
class MarkedTable:
    """A table as a page shows it: each row with its cells."""

    table: Table
    rows: tuple[tuple[Row, tuple[Cell, ...]], ...]


def marked(table: Table) -> MarkedTable:
    """Return a table with the text of its cells, the best of each column marked."""
    best = [best_rows(table, c) for c in range(len(table.columns))]
    rows = tuple(
        (
            row,
            tuple(
                Cell(format_number(value, table.columns[c].digits), i in best[c]) for c, value in enumerate(row.values)
            ),
        )
        for i, row in enumerate(table.rows)
    )
    return MarkedTable(table, rows)


def definitions_of(tables: Sequence[Table]) -> list[tuple[str, str]]:
    """Return each definition once, in order of appearance, under the names of all columns that share it."""
    names: dict[str, list[str]] = {}
    for column in (column for table in tables for column in table.columns if column.definition):
        under = names.setdefault(column.definition, [])
        if column.name not in under:
            under.append(column.name)
    return [(", ".join(under), definition) for definition, under in names.items()]


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, str):
            yield f"{prefix}{key}", value
        elif isinstance(value, float):
            yield f"{prefix}{key}", f"{value:.6g}"
        else:
            yield f"{prefix}{key}", json.dumps(value, default=str)


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
