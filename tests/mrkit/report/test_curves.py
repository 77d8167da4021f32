"""Line plots: the values are where they belong."""

import re

import pytest

from mrcore.errors import BadInputError
from mrkit.report.curves import Curve, curve_svg


def points_of(svg):
    return [tuple(map(float, p.split(","))) for p in re.search(r'd="M([^"]+)"', svg)[1].replace("L", "").split()]


def test_a_curve_falls_when_its_values_fall_and_marks_its_target():
    svg = str(curve_svg(Curve("fit", "step", "loss", (10.0, 7.0, 6.0, 5.5), 6.0, "noise")))
    points = points_of(svg)
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted(y for _, y in points)  # down the page is larger y
    target = float(re.search(r'class="target"[^>]*y1="([\d.]+)"', svg)[1])
    assert target == pytest.approx(points[2][1], abs=0.1)
    assert "noise" in svg


def test_a_curve_over_decades_is_logarithmic():
    ys = [y for _, y in points_of(str(curve_svg(Curve("fit", "", "", (1000.0, 100.0, 10.0)))))]
    assert ys[1] - ys[0] == pytest.approx(ys[2] - ys[1], abs=0.11)
    linear = [y for _, y in points_of(str(curve_svg(Curve("fit", "", "", (30.0, 20.0, 10.0)))))]
    assert linear[1] - linear[0] == pytest.approx(linear[2] - linear[1], abs=0.11)


@pytest.mark.parametrize("values", [(3.0,), (2.0, 2.0, 2.0), (-1.0, 4.0), (0.0, 0.0)])
def test_curves_of_odd_values_are_drawn(values):
    assert len(points_of(str(curve_svg(Curve("fit", "", "", values))))) == len(values)


def test_a_curve_needs_finite_values():
    with pytest.raises(BadInputError, match="finite"):
        Curve("fit", "", "", (1.0, float("nan")))
