import math

import pytest

from ulfsim.matching.widths import match_widths


def _spread(rest, gain=1.0):
    """Edges of width `rest` per axis, blurred; `gain` bends the law that the search assumes."""
    return lambda fwhm: tuple(math.sqrt(r**2 + (gain * f) ** 2) for r, f in zip(rest, fwhm, strict=True))


@pytest.mark.parametrize("gain", [0.6, 1.0, 1.4])
def test_widths_are_found_on_all_axes_at_once(gain):
    wanted = (2.5, 3.0, 8.0)
    width, reached = match_widths(_spread((2.0, 1.0, 3.0), gain), wanted, (1.5, 1.5, 5.0), (9.0, 9.0, 20.0))
    assert reached == pytest.approx(wanted, rel=0.03)
    for w, goal, rest in zip(width, wanted, (2.0, 1.0, 3.0), strict=True):
        assert gain * w == pytest.approx(math.sqrt(goal**2 - rest**2), rel=0.15)


def test_a_blunt_source_gets_no_blur_and_other_axes_are_not_disturbed():
    width, reached = match_widths(_spread((4.0, 1.0, 3.0)), (2.0, 3.0, 2.0), (1.5, 1.5, 5.0), (9.0, 9.0, 20.0))
    assert (width[0], width[2]) == (0.0, 0.0)
    assert (reached[0], reached[2]) == (4.0, 3.0)
    assert reached[1] == pytest.approx(3.0, rel=0.03)


def test_an_axis_without_edges_keeps_its_width():
    def spread(fwhm):
        return (math.nan, *_spread((1.0, 1.0, 3.0))(fwhm)[1:])

    width, reached = match_widths(spread, (2.0, 3.0, math.nan), (1.5, 1.5, 5.0), (9.0, 9.0, 20.0))
    assert (width[0], width[2]) == (1.5, 5.0)
    assert math.isnan(reached[0])
    assert reached[1] == pytest.approx(3.0, rel=0.03)


def test_a_wish_beyond_the_limit_ends_there():
    width, _ = match_widths(_spread((1.0, 1.0, 1.0)), (50.0, 3.0, 3.0), (1.0, 1.0, 1.0), (6.0, 6.0, 6.0))
    assert width[0] == pytest.approx(6.0)
