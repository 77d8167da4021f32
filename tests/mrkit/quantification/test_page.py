"""The page of maps: fixed scales, planes, errors by tissue, and what is said of maps without a truth."""

import io
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from mrcore.data.grid import Grid
from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.errors import BadInputError
from mrkit.files.provenance import Record
from mrkit.quantification.page import Shown, planes_of, quantify_report
from mrkit.quantification.quantify import Quantified
from mrkit.quantification.scales import LIPARI, NAVIA, T1_SCALE, T2_SCALE
from mrkit.quantification.scores import KnownMaps, difference_table, map_errors
from mrkit.report.pictures import BACKGROUND, quantity_picture
from mrkit.report.report import build_page

SHAPE = (12, 12, 1)
GRID = Grid(SHAPE, np.diag([2.0, 2.0, 5.0, 1.0]))
RECORD = Record(seed=4, notes=("<b>beware</b>",))


@cache
def truth():
    prob = torch.zeros(3, *SHAPE)
    prob[0, 2:5, 2:10] = prob[1, 5:7, 2:10] = prob[2, 7:10, 2:10] = 1
    shares = prob.sum(0)
    t1_s, t2_s, pd = (
        torch.einsum("t,txyz->xyz", torch.tensor(values), prob) + 0 * shares
        for values in ((3.0, 1.4, 0.8), (1.5, 0.1, 0.06), (1.0, 0.8, 0.7))
    )
    return KnownMaps(t1_s, t2_s, pd, TissueMap(prob, TISSUES, GRID))


def result(t1=1.0, t2=1.0, pd=1.0):
    known = truth()
    mask = known.pd > 0
    zero = Volume(torch.zeros(SHAPE), GRID)
    return Quantified(
        t1_s=Volume(t1 * known.t1_s, GRID),
        t2_s=Volume(t2 * known.t2_s, GRID),
        pd=Volume((pd * known.pd).to(torch.complex64) * 1j, GRID),
        b1=None,
        t1_sd_s=zero,
        t2_sd_s=zero,
        pd_sd=zero,
        residual=Volume(0.25 * mask.float(), GRID),
        mask=mask,
        converged=True,
        n_iter=3,
        history=(0.4, 0.2, 0.1),
        history_of="relative step",
        message="settled",
        notes=(),
    )


def test_errors_are_relative_by_tissue_and_pd_has_no_scale():
    errors = map_errors(result(t1=1.1, t2=0.8, pd=7.0), truth())
    for name in TISSUES:
        assert errors[name]["t1"] == pytest.approx(10, rel=1e-4)
        assert errors[name]["t2"] == pytest.approx(20, rel=1e-4)
        assert errors[name]["pd"] == pytest.approx(0, abs=1e-4)
    known = truth()
    other = replace(known, pd=torch.where(known.tissues.of("WM") > 0, 1.4, known.pd))
    assert map_errors(result(), other)["WM"]["pd"] > 10


def test_known_maps_on_another_grid_are_refused():
    with pytest.raises(BadInputError, match="share the grid"):
        replace(truth(), t1_s=torch.ones(3, 3, 1))


def test_methods_without_a_truth_are_described_by_medians():
    (row,) = difference_table({"a": result()}).rows
    values = truth().t1_s[truth().pd > 0]
    assert row.values[0] == pytest.approx(float(np.median(values)))
    assert row.values[2] == pytest.approx(1e3 * float(np.median(truth().t2_s[truth().pd > 0])))
    assert row.values[4] == pytest.approx(25)


def test_lightness_rises_along_both_scales():
    for colours in (LIPARI, NAVIA):
        linear = (np.array(colours) / 255) ** 2.2
        assert (np.diff(linear @ (0.2126, 0.7152, 0.0722)) > 0).all()


def test_one_value_has_one_colour_and_nothing_outside_the_mask():
    (plane,) = planes_of(GRID, truth().pd > 0)
    assert plane.name == "axial"
    for value, colour in ((0.0, LIPARI[0]), (1.25, LIPARI[6]), (2.5, LIPARI[-1]), (9.0, LIPARI[-1])):
        volume = Volume(torch.full(SHAPE, value), GRID)
        mask = torch.ones(SHAPE, dtype=torch.bool)
        mask[:6] = False
        png = quantity_picture(volume, plane, T1_SCALE.window, T1_SCALE.colours, mask)
        pixels = np.array(Image.open(io.BytesIO(png)))
        height, width, _ = pixels.shape
        # The patient's right, x > 0, is on the left of the picture.
        assert tuple(pixels[height // 2, width // 4]) == colour
        assert tuple(pixels[height // 2, 3 * width // 4]) == BACKGROUND


def test_scales_are_in_the_unit_they_say():
    assert (T2_SCALE.window.low, T2_SCALE.window.high) == (0.0, 0.2)
    assert T2_SCALE.legend.labels == ("0", "100", "200\N{NO-BREAK SPACE}ms")


def test_a_volume_has_three_planes():
    grid = Grid((12, 12, 12), np.diag([2.0, 2.0, 2.0, 1.0]))
    assert len(planes_of(grid, torch.ones((12, 12, 12), dtype=torch.bool))) == 3


def test_the_page_shows_every_method_beside_the_truth():
    report = quantify_report(
        Shown({"ours": result(), "plain": result(t1=1.2)}, {"T1w": result().t1_s}, truth()), RECORD
    )
    titles = [figure.title for figure in report.figures]
    assert titles[:3] == ["T1, truth", "T1, ours", "T1, plain"]
    assert {"Error of T2, plain", "PD, ours", "Uncertainty of T1", "Residual", "T1w"} <= set(titles)
    html = build_page(report, "quantify.html.j2")
    assert "Histograms" in html
    assert "&lt;b&gt;beware&lt;/b&gt;" in html
    assert "ours: settled" in html
    assert build_page(report, "quantify.html.j2") == html
    alone = quantify_report(Shown({"ours": result()}), RECORD)
    assert not any("truth" in figure.title or "Error" in figure.title for figure in alone.figures)
    assert alone.tables[0].title == "Methods"
