"""The page: nothing is fetched, everything is escaped, the record is told, scores have definitions."""

import pytest
import torch
from pages import Page, head, noisy

from mrcore.data.volume import TISSUES, TissueMap
from mrcore.metrics.edges import EdgeSettings
from mrcore.metrics.scores import score_image, score_tissues
from mrcore.metrics.similarity import bounding_box, mslc
from mrkit.files.provenance import Record, installed_versions
from mrkit.report.curves import Curve
from mrkit.report.plots import Line, LinePlot
from mrkit.report.report import Column, Fact, Figure, Legend, PlotGroup, Report, Row, Table, build_page
from mrkit.report.tables import contrast_table, score_tables, tissue_table


def test_everything_that_is_given_is_escaped_and_told(tmp_path):
    evil = "<script>alert('x')<"
    (tmp_path / evil).write_bytes(b"x")
    record = Record({evil: tmp_path / evil}, 7, {evil: {evil: evil}}, (evil,), evil, {evil: evil})
    report = Report(
        title=evil,
        summary=evil,
        record=record,
        facts=(Fact(evil, evil),),
        figures=(Figure(evil, evil, (b"x",), (evil + '"',), Legend(("#fff",), (evil,))),),
        planes=(evil,),
        tables=(Table(evil, (Column(evil, evil, definition=evil),), (Row(evil, (1.0,)),), evil),),
        curves=(Curve(evil, evil, evil, (1.0, 2.0), 1.5, evil),),
        groups=(PlotGroup(evil, evil, (LinePlot(evil, evil, evil, (Line(evil, (0.0, 1.0), (0.0, 1.0), "#000"),)),)),),
    )
    html = build_page(report)
    assert evil not in html
    page = Page(html)
    assert len(page.all("script")) == 1
    assert html.count("&lt;script&gt;") >= 22
    assert page.all("img")[-1]["alt"] == f'{evil}: {evil}"'


def test_the_record_is_on_the_page_and_its_notes_come_first(tmp_path):
    (tmp_path / "sub-01 & co.nii.gz").write_bytes(b"content")
    parameters = {"fit": {"tv": 0.0123456789, "steps": 70}, "preset": "hyperfine-t1w"}
    record = Record(
        {"scan": tmp_path / "sub-01 & co.nii.gz"},
        7,
        parameters,
        ("The <b>bias</b> & more",),
        versions={"mrkit": "9.8.7"},
    )
    html = build_page(Report("t", "s", record, curves=(Curve("c", "x", "y", (1.0,)),)))
    for text in (
        "The &lt;b&gt;bias&lt;/b&gt; &amp; more",
        "Research use only; not for diagnosis.",
        "sub-01 &amp; co.nii.gz",
        "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73",
        "<dt>seed</dt><dd>7</dd>",
        "fit.tv",
        "0.0123457",
        "hyperfine-t1w",
        "9.8.7",
    ):
        assert text in html, text
    assert str(tmp_path) not in html
    assert html.index("Read this first") < html.index("<h2>Convergence</h2>")


def test_contrast_of_maps_without_cores_is_left_open():
    truth, tissues, mask = head()
    vague = TissueMap(0.8 * tissues.prob, TISSUES, truth.grid)
    (row,) = contrast_table({"a": truth}, vague, mask).rows
    assert row.values[:3] == (None, None, None)
    assert row.values[3] == pytest.approx(mslc(truth.data[bounding_box(mask)]))


def test_each_score_has_its_definition():
    truth, tissues, mask = head()
    tables = (
        *score_tables({"a": score_image(truth, noisy(truth, 0.1, 0), mask, tissues)}),
        tissue_table({"a": score_tissues(tissues, tissues)}),
    )
    assert all(column.definition for table in tables for column in table.columns)
    assert score_tables({}) == ()
    coarse = score_image(truth, noisy(truth, 0.1, 0), mask, edges=EdgeSettings(sigma_voxels=2.5, low_quantile=0.4))
    stated = score_tables({"a": coarse})[0].columns[4].definition
    assert "smoothing 2.5 voxel" in stated
    assert "40th and 80th" in stated


def test_versions_name_what_the_numbers_depend_on():
    found = installed_versions()
    assert found["torch"] == torch.__version__
    assert {"python", "mrkit", "numpy", "scipy"} <= set(found)
