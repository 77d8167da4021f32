"""The page of a super-resolution: pictures in one window, errors, scores, several contrasts."""

import base64
import io
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from pages import GRID, Page, grid_of, head, noisy
from PIL import Image

from inr.fitting.fit import FitSettings
from inr.scans.alignment import Pose
from inr.scans.stacks import Stack
from mrcore.data.acquisition import gaussian_psf
from mrcore.data.volume import Volume
from mrcore.metrics.scores import score_image, score_tissues
from mrcore.solvers import Solution
from mrkit.files.provenance import Record
from mrkit.report.pictures import BACKGROUND
from mrkit.report.report import build_page
from mrkit.superresolution.page import Truth, superresolve_report
from mrkit.superresolution.superresolve import SuperResolved

RECORD = Record(seed=7, segmenter="a segmenter 1.0", notes=("a note",), versions={})


def result(images, cubics, residuals, contrasts=("T1w",)):
    _, tissues, _ = head()
    return SuperResolved(
        images=images,
        cubics=cubics,
        tissues=tissues,
        residuals_z=residuals,
        contrasts=contrasts,
        noise_sds=(1.0,) * len(residuals),
        solution=Solution(torch.zeros(1), True, 4, (90.0, 20.0, 5.0, 1.2), "reached the noise"),
        notes=(),
        settings=FitSettings(),
    )


@cache
def superresolved(with_truth=True):
    truth, tissues, mask = head()
    cubic, inr = noisy(truth, 0.2, 1), noisy(truth, 0.05, 2)
    scan = Volume(torch.rand(32, 32, 8, generator=torch.Generator().manual_seed(3)), grid_of(thick=4))
    scores = {n: score_image(truth, i, mask, tissues) for n, i in {"Cubic": cubic, "INR": inr}.items()}
    known = Truth(truth, mask, scores, {"INR": score_tissues(tissues, tissues)}) if with_truth else None
    return superresolve_report([scan], ["T1w"], result((inr,), (cubic,), (scan,)), RECORD, known)


def test_the_page_fetches_nothing():
    html = build_page(superresolved())
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
    images = [a for a in Page(build_page(report)).all("img") if a.get("src")]
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
    cells = Page(build_page(superresolved())).cells
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


def test_what_was_done_is_on_the_page():
    html = build_page(superresolved())
    for text in (
        "a segmenter 1.0",
        "reached the noise",
        "radiological",
        "2 \N{MULTIPLICATION SIGN} 2 \N{MULTIPLICATION SIGN} 8 mm",
    ):
        assert text in html, text
    assert html.index("Read this first") < html.index("<h2>Pictures</h2>")


def test_the_same_report_twice_is_the_same_text():
    assert build_page(superresolved()) == build_page(superresolved.__wrapped__())


def test_without_truth_there_is_no_truth_no_error_and_no_score():
    html = build_page(superresolved(with_truth=False))
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


def test_all_images_of_a_row_share_the_window_of_the_truth():
    truth, _, mask = head()
    found = result((truth,), (Volume(0.5 * truth.data, GRID),), (truth,))
    report = superresolve_report([truth], ["T1w"], found, RECORD, Truth(truth, mask, {}, {}))
    by_title = {f.title: f.pictures for f in report.figures}
    assert by_title["Truth"] == by_title["INR"] == by_title["ULF scan"]
    # Half of the signal is darker: each image stretched by itself would look the same.
    assert by_title["Cubic"] != by_title["Truth"]


def test_the_error_is_image_minus_truth_in_the_brain_only():
    truth, _, mask = head()
    found = result((truth,), (Volume(truth.data + 5.0, GRID),), (truth,))
    report = superresolve_report([truth], ["T1w"], found, RECORD, Truth(truth, mask, {}, {}))
    pictures = {f.title: f.pictures[0] for f in report.figures}
    too_bright = np.array(Image.open(io.BytesIO(pictures["Error of cubic"]))).astype(int)
    height, width, _ = too_bright.shape
    red, _, blue = too_bright[height // 2, width // 2]
    assert red > blue
    assert tuple(too_bright[-2, 1]) == BACKGROUND
    none = np.array(Image.open(io.BytesIO(pictures["Error of INR"])))
    assert tuple(none[height // 2, width // 2]) == BACKGROUND


def test_several_contrasts_have_their_own_scans_images_and_residuals():
    truth, _, _ = head()
    other = Volume(7.0 - 5 * truth.data, GRID)
    scans = [truth, noisy(truth, 0.1, 1), other]
    stacks = tuple(
        Stack(scan, 0.1, gaussian_psf(GRID.spacing_mm), contrast, Pose((0.0, 0.0, 3.0), (0.0, 4.0, 0.0)))
        for scan, contrast in zip(scans, (0, 0, 1), strict=True)
    )
    found = replace(result((truth, other), (truth, other), tuple(scans), ("T1w", "T2w")), stacks=stacks)
    report = superresolve_report(scans, ["T1w", "T1w", "T2w"], found, RECORD)
    titles = [figure.title for figure in report.figures]
    assert titles[:4] == ["Scan 1, T1w", "Scan 2, T1w", "T1w, Cubic", "T1w, INR"]
    assert titles[4:7] == ["Scan 3, T2w", "T2w, Cubic", "T2w, INR"]
    assert titles[-1] == "Scan 3, T2w: residual"
    pictures = {figure.title: figure.pictures for figure in report.figures}
    # A window for each contrast: in that of the other nothing of it would be seen.
    assert len(np.unique(np.array(Image.open(io.BytesIO(pictures["T2w, INR"][0]))))) > 50
    poses = next(table for table in report.tables if table.title == "Scans")
    assert [row.values[:2] for row in poses.rows] == [(pytest.approx(3.0), pytest.approx(4.0))] * 3
    assert "all were aligned to the first" in report.summary
