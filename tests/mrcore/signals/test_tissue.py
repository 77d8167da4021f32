import math

import pytest

from mrcore.errors import BadInputError
from mrcore.signals.tissue import TISSUE_TABLE, Anchor, Tissue, known_at, relaxation


@pytest.mark.parametrize(
    ("name", "field_t", "t1_s"),
    [("WM", 0.05, 0.275), ("GM", 0.05, 0.327), ("GM", 0.55, 0.685), ("WM", 0.55, 0.464), ("CSF", 1.5, 4.28)],
)
def test_anchors_are_returned_as_published(name, field_t, t1_s):
    assert relaxation(name, field_t).t1_s == t1_s


def test_log_log_interpolation_by_hand():
    # Half way in log B0 between 1 T and 4 T is 2 T; the value is the geometric mean.
    table = {"X": _tissue((1.0, 0.2, 0.02), (4.0, 0.8, 0.24))}
    found = relaxation("X", 2.0, table)
    assert found.t1_s == pytest.approx(0.4)
    assert found.t1_spread_s == pytest.approx(0.4 * 0.2)
    # A quarter of the way: three parts of the spread at 1 T, 10 %, and one of that at 4 T, 30 %.
    quarter = relaxation("X", math.sqrt(2), table)
    assert quarter.t1_spread_s / quarter.t1_s == pytest.approx(0.15)


def _tissue(*points):
    anchors = tuple(Anchor(*point, "test") for point in points)
    return Tissue(anchors, anchors, anchors)


def test_grey_and_white_matter_at_64_mt_lie_between_the_measurements():
    white, grey = relaxation("WM", 0.064), relaxation("GM", 0.064)
    slope = math.log(0.464 / 0.275) / math.log(0.55 / 0.05)
    assert white.t1_s == pytest.approx(0.275 * (0.064 / 0.05) ** slope)
    # The contrast collapses towards low field: T1 ratio 1.2 against more than 1.5 at 3 T.
    assert 1.15 < grey.t1_s / white.t1_s < 1.25
    assert relaxation("GM", 3.0).t1_s / relaxation("WM", 3.0).t1_s > 1.5


@pytest.mark.parametrize("field_t", [0.049, 3.01, 7.0])
def test_nothing_is_extrapolated(field_t):
    with pytest.raises(BadInputError, match=r"not extrapolated.*known_at"):
        relaxation("WM", field_t)


def test_unknown_tissue_lists_the_known_ones():
    with pytest.raises(BadInputError, match="CSF"):
        relaxation("bone", 3.0)


def test_a_user_may_override_a_value_and_is_held_to_its_field():
    table = {**TISSUE_TABLE, "WM": known_at(0.064, 0.4, 0.09, 0.7, "own scan", spread=0.1)}
    found = relaxation("WM", 0.064, table)
    assert (found.t1_s, found.t2_s, found.pd, found.sources) == (0.4, 0.09, 0.7, ("own scan",))
    assert found.t1_spread_s == pytest.approx(0.04)
    assert relaxation("GM", 0.064, table) == relaxation("GM", 0.064)
    with pytest.raises(BadInputError, match="not extrapolated"):
        relaxation("WM", 0.1, table)


def test_every_number_has_a_source_a_positive_value_and_t2_below_t1():
    for name, tissue in TISSUE_TABLE.items():
        for anchor in (*tissue.t1_s, *tissue.t2_s, *tissue.pd):
            assert anchor.source, name
        for field_t in (0.05, 0.064, 0.3, 1.5):
            found = relaxation(name, field_t)
            assert found.t2_s < found.t1_s
            assert found.pd <= 1
        t1 = [relaxation(name, field).t1_s for field in (0.05, 0.1, 0.5, 1.0, 1.5)]
        assert t1 == sorted(t1)


def test_anchors_must_be_sensible():
    with pytest.raises(BadInputError, match="positive"):
        Anchor(0.0, 1.0, 0.0, "s")
    with pytest.raises(BadInputError, match="rising"):
        _tissue((3.0, 1.0, 0.0), (1.5, 0.9, 0.0))
