"""Tables of a page: what is best, digits, definitions."""

from dataclasses import replace

import pytest

from mrcore.errors import BadInputError
from mrkit.files.provenance import Record
from mrkit.report.report import Better, Column, Figure, Report, Row, Table, best_rows, build_page, format_number

COLUMN = Column("x", better=Better.HIGHER, digits=2)


@pytest.mark.parametrize(
    ("better", "values", "best"),
    [
        (Better.HIGHER, (1.0, 3.0, 2.0), {1}),
        (Better.LOWER, (1.0, 3.0, 2.0), {0}),
        (Better.NEAR_REFERENCE, (1.0, 3.0, 2.2), {2}),
        (Better.NEITHER, (1.0, 3.0, 2.0), set()),
        (Better.HIGHER, (1.0, 3.001, 2.999), {1, 2}),  # read as 3.00 both
        (Better.HIGHER, (None, float("nan"), 2.0), set()),  # nobody to win against
        (Better.LOWER, (None, 4.0, 5.0), {1}),
    ],
)
def test_the_best_of_a_column(better, values, best):
    rows = [Row(str(v), (v,)) for v in values]
    table = Table("t", (replace(COLUMN, better=better),), (*rows, Row("truth", (2.5,), is_reference=True)))
    assert best_rows(table, 0) == best
    html = build_page(Report("t", "s", Record(), tables=(table,)))
    assert html.count('<td class="best">') == len(best)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.005, "1.00"),
        (-2.346, "\N{MINUS SIGN}2.35"),
        (-0.001, "0.00"),
        (None, "\N{EN DASH}"),
        (float("nan"), "\N{EN DASH}"),
        (float("inf"), "\N{INFINITY}"),
    ],
)
def test_numbers_as_a_reader_wants_them(value, text):
    assert format_number(value, 2) == text


def test_tables_of_another_shape_are_refused():
    with pytest.raises(BadInputError, match="2 values, not 1"):
        Table("t", (COLUMN,), (Row("a", (1.0, 2.0)),))
    with pytest.raises(BadInputError, match="more than one reference"):
        Table("t", (COLUMN,), (Row("a", (1.0,), True), Row("b", (1.0,), True)))
    with pytest.raises(BadInputError, match="2 pictures, 1 captions"):
        Figure("f", "", (b"", b""), ("one",))


def test_a_definition_that_columns_share_is_said_once():
    columns = tuple(Column(name, definition=text) for name, text in (("a", "one"), ("b", "two"), ("c", "one")))
    html = build_page(Report("t", "s", Record(), tables=(Table("t", columns, ()), Table("u", columns[:1], ()))))
    assert html.count("<dd>one</dd>") == 1
    assert "<dt>a, c</dt>" in html
