"""The page: nothing is fetched, everything is escaped, pictures decode, numbers are those given."""

import base64
import io
import re
from functools import cache
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from mrcore.data.grid import Grid
from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.metrics.edges import EdgeSettings
from mrcore.metrics.scores import score_image, score_tissues
from mrcore.metrics.similarity import bounding_box, mslc
from mrcore.solvers import Solution
from mrkit.files.provenance import InputFile, Record, installed_versions
from mrkit.report.curves import Curve
from mrkit.report.pictures import BACKGROUND
from mrkit.report.report import Column, Fact, Figure, Legend, Report, Row, Table, build_report
from mrkit.report.tables import contrast_table, score_tables, tissue_table
from mrkit.simulation.page import Calibrated, calibration_table, simulate_report
from mrkit.superresolution.page import NamedImage, superresolve_report
from ulfsim.calibration.gains import Calibration

CALIBRATION = Calibration(
    gains={"GM": 0.5, "WM": 1.0},
    background_gain=1.0,
    noise_sd=1.0,
    gauge="absolute",
    target={"GM": 40.0, "WM": 50.0},
    predicted={"GM": 40.0, "WM": 50.0},
    null_vector={"GM": 0.01, "WM": 0.04},
    feasible_interval=(-3.0, 2.0),
    active_bounds=("WM = 1",),
    sensitivity={"GM": {"GM": 0.02, "WM": -0.03}, "WM": {"GM": 0.05, "WM": 0.06}},
    scale="units of the source",
    warnings=(),
)

VOID = {"meta", "link", "img", "br", "hr", "input", "line", "path", "circle"}


class Page(HTMLParser):
    """Collects elements, checks that they are nested as they should be, and the text of table cells."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.cells = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "td":
            self.cells[-1] += data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def grid_of(spacing_mm=2.0, n=32, thick=1):
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm * thick, 1.0])
    shape = (n, n, n // thick)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


GRID = grid_of()


def head():
    at = torch.arange(32) - 15.5
    r = (at[:, None, None] ** 2 + at[:, None] ** 2 + at**2).sqrt()
    prob = torch.stack([(r > 10) & (r <= 13), (r > 6) & (r <= 10), r <= 6]).float()
    tissues = TissueMap(prob, TISSUES, GRID)
    image = 0.3 * prob[0] + 0.7 * prob[1] + 1.0 * prob[2]
    return Volume(image, GRID), tissues, prob.sum(0) > 0


def noisy(volume, sd, seed):
    draw = torch.randn(volume.data.shape, generator=torch.Generator().manual_seed(seed))
    return Volume(volume.data + sd * draw, volume.grid)


RECORD = Record(
    seed=7,
    segmenter="a segmenter 1.0",
    seconds=83.4,
    notes=("The <b>bias</b> & more",),
    inputs=(InputFile("sub-01 & co.nii.gz", "0123abcd" * 8, "scan"),),
    parameters={"fit": {"tv": 0.0123456789, "steps": 70}, "preset": "hyperfine-t1w"},
    versions={"mrkit": "9.8.7"},
)


@cache
def superresolved(with_truth=True):
    truth, tissues, mask = head()
    cubic, inr = noisy(truth, 0.2, 1), noisy(truth, 0.05, 2)
    scan = Volume(torch.rand(32, 32, 8, generator=torch.Generator().manual_seed(3)), grid_of(thick=4))
    images = {"Cubic": cubic, "INR": inr}
    return superresolve_report(
        scan=scan,
        cubic=cubic,
        images=[NamedImage("INR", inr)],
        mask=mask,
        tissues=tissues,
        residual_z=scan,
        record=RECORD,
        truth=truth if with_truth else None,
        scores={n: score_image(truth, i, mask, tissues) for n, i in images.items()} if with_truth else None,
        tissue_scores={"INR": score_tissues(tissues, tissues)} if with_truth else None,
        fit=Solution(torch.zeros(1), True, 4, (90.0, 20.0, 5.0, 1.2), "reached the noise"),
    )


def test_the_page_fetches_nothing():
    html = build_report(superresolved())
    page = Page(html)
    for tag, attrs in page.elements:
        for name in ("src", "href", "data", "srcset", "poster", "action"):
            assert attrs.get(name, "data:").startswith("data:"), (tag, name)
    assert not page.all("link")
    assert "@import" not in html
    assert not re.search(r"url\(", html)
    assert not re.search(r"https?://", html)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy


def test_all_pictures_decode_have_alt_texts_and_one_size_per_plane():
    report = superresolved()
    images = [a for a in Page(build_report(report)).all("img") if a.get("src")]
    # Truth, scan, cubic, INR, segmentation, two errors, residual; three planes each.
    assert len(images) == 8 * 3
    sizes = set()
    for i, attrs in enumerate(images):
        picture = Image.open(io.BytesIO(base64.b64decode(attrs["src"].removeprefix("data:image/png;base64,"))))
        picture.load()
        sizes.add((i % 3, picture.size))
        assert "left in the picture" in attrs["alt"]
    assert len(sizes) == 3


def test_the_scores_in_the_tables_are_those_given():
    truth, tissues, mask = head()
    scores = score_image(truth, noisy(truth, 0.2, 1), mask, tissues)
    cells = Page(build_report(superresolved())).cells
    assert cells[:6] == [
        f"{v:.{d}f}"
        for v, d in (
            (scores.inside.psnr_db, 2),
            (scores.inside.ssim, 3),
            (scores.inside.nrmse, 3),
            (scores.inside.gradient_error, 3),
            (scores.inside.edge_f1_0, 3),
            (scores.inside.edge_f1_1, 3),
        )
    ]
    assert f"{scores.whole.psnr_db:.2f}" in cells
    assert f"{scores.reference_contrast.michelson:.3f}" in cells


def test_everything_that_is_given_is_escaped_and_said():
    evil = "<script>alert('x')</script>"
    report = Report(
        title=evil,
        summary=evil,
        facts=(Fact(evil, evil),),
        notes=(evil,),
        figures=(Figure(evil, evil, (b"x",), (evil + '"',), Legend(("#fff",), (evil,))),),
        planes=(evil,),
        tables=(Table(evil, (Column(evil, evil, definition=evil),), (Row(evil, (1.0,)),), evil),),
        curves=(Curve(evil, evil, evil, (1.0, 2.0), 1.5, evil),),
        parameters={evil: {evil: evil}},
        inputs=(InputFile(evil, evil, evil),),
        versions={evil: evil},
    )
    html = build_report(report)
    assert evil not in html
    page = Page(html)
    assert len(page.all("script")) == 1
    assert html.count("&lt;script&gt;") >= 18
    assert page.all("img")[-1]["alt"] == f'{evil}: {evil}"'


def test_what_was_done_is_on_the_page():
    html = build_report(superresolved())
    for said in (
        "The &lt;b&gt;bias&lt;/b&gt; &amp; more",
        "Research use only; not for diagnosis.",
        "sub-01 &amp; co.nii.gz",
        "0123abcd" * 8,
        "a segmenter 1.0",
        "fit.tv",
        "0.0123457",
        "hyperfine-t1w",
        "9.8.7",
        "1 min 23 s",
        "reached the noise",
        "radiological",
        "2 \N{MULTIPLICATION SIGN} 2 \N{MULTIPLICATION SIGN} 8 mm",
    ):
        assert said in html, said
    assert html.index("Read this first") < html.index("<h2>Pictures</h2>")


def test_the_same_report_twice_is_the_same_text():
    assert build_report(superresolved()) == build_report(superresolved.__wrapped__())


def test_without_truth_there_is_no_truth_no_error_and_no_score():
    html = build_report(superresolved(with_truth=False))
    page = Page(html)
    assert len([a for a in page.all("img") if a.get("src")]) == 5 * 3
    assert "<h3>Truth</h3>" not in html
    assert "Error of" not in html
    assert "PSNR</th>" not in html.replace("<small>", "</th>")
    assert "no truth is known" in html
    # Cubic and INR: mean WM, mean GM, Michelson, MSLC. White noise and this fit: mean, sd, three correlations.
    assert len(page.cells) == 8 + 10
    assert float(page.cells[0]) == pytest.approx(1.0, abs=0.02)
    assert float(page.cells[1]) == pytest.approx(0.7, abs=0.02)
    assert float(page.cells[6]) == pytest.approx(0.3 / 1.7, abs=0.002)


def test_contrast_of_maps_without_cores_is_left_open():
    truth, tissues, mask = head()
    vague = TissueMap(0.8 * tissues.prob, TISSUES, GRID)
    (row,) = contrast_table({"a": truth}, vague, mask).rows
    assert row.values[:3] == (None, None, None)
    assert row.values[3] == pytest.approx(mslc(truth.data[bounding_box(mask)]))


def test_all_images_of_a_row_share_the_window_of_the_truth():
    truth, tissues, mask = head()
    scan = truth
    report = superresolve_report(
        scan=scan,
        cubic=Volume(0.5 * truth.data, GRID),
        images=[NamedImage("INR", truth)],
        mask=mask,
        tissues=tissues,
        residual_z=scan,
        record=RECORD,
        truth=truth,
    )
    by_title = {f.title: f.pictures for f in report.figures}
    assert by_title["Truth"] == by_title["INR"] == by_title["ULF scan"]
    # Half of the signal is darker: each image stretched by itself would look the same.
    assert by_title["Cubic"] != by_title["Truth"]


def test_the_error_is_image_minus_truth_in_the_brain_only():
    truth, tissues, mask = head()
    report = superresolve_report(
        scan=truth,
        cubic=Volume(truth.data + 5.0, GRID),
        images=[NamedImage("INR", truth)],
        mask=mask,
        tissues=tissues,
        residual_z=truth,
        record=RECORD,
        truth=truth,
    )
    pictures = {f.title: f.pictures[0] for f in report.figures}
    too_bright = np.array(Image.open(io.BytesIO(pictures["Error of cubic"]))).astype(int)
    height, width, _ = too_bright.shape
    red, _, blue = too_bright[height // 2, width // 2]
    assert red > blue
    assert tuple(too_bright[-2, 1]) == BACKGROUND
    none = np.array(Image.open(io.BytesIO(pictures["Error of INR"])))
    assert tuple(none[height // 2, width // 2]) == BACKGROUND


def test_a_simulation_reports_targets_and_measured_values():
    truth, tissues, mask = head()
    scan = Volume(torch.rand(32, 32, 8, generator=torch.Generator().manual_seed(3)), grid_of(thick=4))
    quantities = [Calibrated("WM SNR", 50.8, 49.3), Calibrated("nothing", 0.0, 0.1)]
    report = simulate_report(
        source=truth,
        truth=truth,
        scan=scan,
        tissues=tissues,
        mask=mask,
        calibrated=quantities,
        calibration=CALIBRATION,
        record=RECORD,
    )
    page = Page(build_report(report))
    of_targets = ["50.80", "49.30", "\N{MINUS SIGN}3.0", "0.00", "0.10", "\N{EN DASH}"]
    of_gains = ["0.5000", "40.00", "0.010000", "1.60", "\N{MINUS SIGN}3.00"]
    of_gains += ["1.0000", "50.00", "0.040000", "2.00", "3.00"]
    assert page.cells == of_targets + of_gains
    assert "on a bound: WM = 1" in report.tables[1].note
    assert "-3 to 2 null vectors" in report.tables[1].note
    assert len([a for a in page.all("img") if a.get("src")]) == 4 * 3


def test_a_high_field_source_on_another_grid_has_its_own_window():
    truth, tissues, mask = head()
    source = Volume(1000 * torch.rand(16, 16, 16, generator=torch.Generator().manual_seed(0)), grid_of(4.0, 16))
    report = simulate_report(
        source=source,
        truth=truth,
        scan=truth,
        tissues=tissues,
        mask=mask,
        calibrated=(),
        calibration=CALIBRATION,
        record=RECORD,
    )
    assert re.search(r"window [\d.]+ to 99\d", report.figures[0].text)


def test_each_score_has_its_definition():
    truth, tissues, mask = head()
    tables = (
        *score_tables({"a": score_image(truth, noisy(truth, 0.1, 0), mask, tissues)}),
        tissue_table({"a": score_tissues(tissues, tissues)}),
        calibration_table([Calibrated("q", 1.0, 1.0)]),
    )
    assert all(column.definition for table in tables for column in table.columns)
    assert score_tables({}) == ()
    coarse = score_image(truth, noisy(truth, 0.1, 0), mask, edges=EdgeSettings(sigma_voxels=2.5, low_quantile=0.4))
    said = score_tables({"a": coarse})[0].columns[4].definition
    assert "smoothing 2.5 voxel" in said
    assert "40th and 80th" in said


def test_versions_name_what_the_numbers_depend_on():
    found = installed_versions()
    assert found["torch"] == torch.__version__
    assert {"python", "mrkit", "numpy", "scipy"} <= set(found)
