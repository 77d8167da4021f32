"""The comparison of methods on a scan without a truth: what is judged, and how it is shown."""

import math
from types import SimpleNamespace

import pytest
import torch
from operators import grid
from prepared import one_scan

from inr.fitting.fit import FitSettings
from inr.fitting.methods import METHODS
from inr.voxels import cubic
from mrcore.data.acquisition import gaussian_psf
from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.forward import imaging_operator, predict
from mrcore.noise import add_noise
from mrcore.random import seeded
from mrkit.files.provenance import Record
from mrkit.report.pictures import sections, window_of
from mrkit.report.report import Report, best_rows, build_page
from mrkit.superresolution import comparison
from mrkit.superresolution.comparison import compare_methods, contrast_of, methods
from mrkit.superresolution.prepare import Prepared
from mrkit.superresolution.trust_page import comparison_figures, comparison_json, comparison_table

LATTICE, SCAN = grid((24, 24, 20), (2.0,) * 3), grid((24, 24, 8), (2.0, 2.0, 5.0))
NOISE_SD = 0.03


def truth() -> torch.Tensor:
    at = torch.stack(torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in LATTICE.shape), indexing="ij"))
    pieces = torch.where(torch.sin(at[0] * 0.7) * torch.sin(at[1] * 0.6 + 1) > 0, 1.0, 0.6)
    return pieces * (at.square().sum(0).sqrt() < 9.5)


@pytest.fixture(scope="module")
def ready() -> Prepared:
    operator = imaging_operator(LATTICE, SCAN, gaussian_psf(SCAN.spacing_mm))
    scan = Volume(add_noise(predict(operator, truth()), NOISE_SD, seeded(3, "test_comparison")), SCAN)
    prob = torch.stack([torch.zeros(LATTICE.shape), (truth() == 0.6).float(), (truth() == 1.0).float()])
    tissues = TissueMap(prob, TISSUES, LATTICE)
    start = cubic(scan, LATTICE).data
    return one_scan(scan, 200.0, NOISE_SD, LATTICE, operator, start, truth() > 0, tissues)


@pytest.fixture(scope="module")
def compared(ready):
    calls = []

    def few(ready, settings, seed, priors):
        real = methods(ready, settings, seed, priors)
        chosen = {name: real[name] for name in ("cubic", "Huber-TV", "INR, default")}
        return {**chosen, "truth": ("The truth.", lambda scene: calls.append(scene) or truth()[None])}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "methods", few)
        found = compare_methods(ready, FitSettings(n_steps=15, tv_weight=0.5), 0, {}, ready.tissues)
    assert [scene.is_whole for scene in calls] == [True, False]
    return found


def test_the_truth_is_judged_the_best(compared):
    """It predicts what it has not seen up to the noise, and leaves white residuals; others do worse."""
    by_name = {one.name: one for one in compared.judged}
    right = by_name["truth"]
    assert right.held_out == pytest.approx(1.0, abs=0.15)
    assert right.residual.sd == pytest.approx(1.0, abs=0.05)
    assert right.michelson == pytest.approx(0.25, abs=0.001)
    assert all(one.held_out > right.held_out for one in compared.judged if one is not right)
    assert by_name["Huber-TV"].held_out < by_name["cubic"].held_out
    assert by_name["cubic"].residual.sd > 1.5, "interpolation predicts the scan badly through its own blur"
    assert by_name["INR, default"].seconds > 0
    assert float(right.image.data.max()) == pytest.approx(200.0)


def test_table_figures_and_file_say_the_same(compared, ready):
    table = comparison_table(compared)
    assert [row.name for row in table.rows] == ["ideal", "cubic", "Huber-TV", "INR, default", "truth"]
    assert best_rows(table, 0) == {4}
    assert table.rows[4].values[1] == pytest.approx(100 * (table.rows[4].values[0] / compared.rms_cubic - 1))
    planes = sections(LATTICE, ready.tissues.mask)
    figures = comparison_figures(compared, planes, window_of(compared.judged[3].image, ready.tissues.mask))
    assert [figure.title for figure in figures] == [one.name for one in compared.judged]
    assert "All methods on this scan" in build_page(Report("t", "s", Record(), tables=(table,)))
    text = comparison_json(compared)
    assert text["methods"]["truth"]["Held-out error (noise sd)"] == compared.judged[3].held_out
    assert text["held_out_voxels"] == compared.n_voxels > 30


def test_every_method_is_compared(ready):
    prior = object()
    names = list(methods(ready, FitSettings(), 0, {"denoiser prior": prior}))
    for name in ("trilinear", "cubic", "Tikhonov", "Huber-TV", "TV + Hessian", "INR, denoiser prior"):
        assert name in names
    assert {f"INR, {name}" for name in METHODS} < set(names)
    assert any(name.startswith("HULFSynth") for name in names)


def test_finished_images_are_not_made_again(ready, monkeypatch):
    only = {"cubic": methods(ready, FitSettings(), 0, {})["cubic"]}
    monkeypatch.setattr(comparison, "methods", lambda *_: only)
    kept = {}

    def keep(name, make):
        return kept[name] if name in kept else kept.setdefault(name, make())

    first, again = (compare_methods(ready, FitSettings(), 0, {}, ready.tissues, keep).judged[0] for _ in range(2))
    assert len(kept) == 2
    assert first.seconds is not None
    assert again.seconds is None
    assert again.held_out == first.held_out


def test_contrast_to_noise_of_two_levels(ready):
    noisy = truth() + 0.05 * torch.randn(LATTICE.shape, generator=seeded(0, "cnr"))
    michelson, cnr = contrast_of(noisy, ready.tissues)
    assert michelson == pytest.approx(0.25, abs=0.01)
    assert cnr == pytest.approx(0.4 / 0.05, rel=0.1)
    vague = TissueMap(0.5 * ready.tissues.prob, TISSUES, LATTICE)
    assert contrast_of(noisy, vague) == (None, None)
    assert not math.isnan(michelson)


def test_errors_of_scans_count_in_the_noise_of_each():
    """Two scans, one with ten times the noise of the other, whose errors are all three times their noise."""
    views = [SimpleNamespace(noise_sd=sd) for sd in (0.02, 0.2)]
    errors = [torch.full((50,), 0.06), torch.full((20,), -0.6)]
    assert comparison._Judge._rms(SimpleNamespace(views=views), errors) == pytest.approx(3.0)


def test_the_noise_of_a_contrast_is_the_root_mean_square_of_both_tissues():
    """By hand: white matter 10 +- 1, grey matter 5 +- 3, so that the noise is sqrt(5) and not 2."""
    sign = 1 - 2 * (torch.arange(24) % 2).float()
    white = torch.zeros(LATTICE.shape, dtype=torch.bool)
    white[:12] = True
    image = torch.where(white, 10 + sign[None, :, None], 5 + 3 * sign[None, :, None])
    prob = torch.stack([torch.zeros(LATTICE.shape), (~white).float(), white.float()])
    michelson, cnr = contrast_of(image, TissueMap(prob, TISSUES, LATTICE))
    assert michelson == pytest.approx(1 / 3, rel=1e-4)
    assert cnr == pytest.approx(5 / math.sqrt(5), rel=1e-3)
