from dataclasses import replace

import pytest
import torch

from mrcore.errors import BadInputError
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from ulfsim.cubes.anatomy import image_anatomy, label_anatomy
from ulfsim.cubes.contrast import Curve, label_levels, smoothed
from ulfsim.cubes.cubes import NARROW, CubeSettings, draw_cubes

SETTINGS = CubeSettings((32, 32, 40), n_cubes=2)
NOISELESS = replace(NARROW, wm_snr=(1e6, 1e6))


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(96, 192.0), skull=True)


@pytest.fixture(scope="module")
def anatomies(head):
    labels = (head.tissues.prob.argmax(0) + 1) * head.mask + 9 * ((head.image.data > 0.1) & ~head.mask)
    table = {0: None, 1: "CSF", 2: "GM", 3: "WM", 9: None}
    return [image_anatomy("image", head.image.data, head.mask), label_anatomy("labels", labels, table)]


def test_the_same_generator_gives_the_same_bytes(anatomies):
    one, two = (draw_cubes(anatomies, SETTINGS, seeded(3, "x")) for _ in range(2))
    assert torch.equal(one.truth, two.truth)
    assert torch.equal(one.scan, two.scan)
    other = draw_cubes(anatomies, SETTINGS, seeded(4, "x"))
    assert not torch.equal(one.truth, other.truth)


def test_scans_are_what_the_stated_operator_makes_of_the_truth(anatomies):
    settings = replace(SETTINGS, ranges=(NOISELESS,), misstated=0.0)
    pair = draw_cubes(anatomies, settings, seeded(0, "x"))
    torch.testing.assert_close(pair.scan, pair.operator(pair.truth).abs(), rtol=1e-4, atol=1e-4)


def test_a_misstated_scan_differs_in_blur_and_noise(anatomies):
    settings = replace(SETTINGS, ranges=(NOISELESS,), misstated=1.0)
    pair = draw_cubes(anatomies, settings, seeded(0, "x"))
    error = (pair.scan - pair.operator(pair.truth).abs()).abs().max()
    assert 1e-3 < float(error) < 0.3
    ratio = pair.noise_sd * 1e6
    assert ((ratio > 1 / 1.5) & (ratio < 1.5) & ((ratio - 1).abs() > 1e-3)).all()


def test_noise_has_the_stated_sd_per_channel(anatomies):
    settings = replace(SETTINGS, n_cubes=4, ranges=(replace(NARROW, wm_snr=(20.0, 20.0)),), misstated=0.0)
    residuals = []
    for number in range(6):
        pair = draw_cubes(anatomies, settings, seeded(number, "noise"))
        clean = pair.operator(pair.truth)
        bright = clean > 0.5
        residuals.append((pair.scan - clean)[bright] / 0.05)
        assert torch.allclose(pair.noise_sd, torch.tensor(0.05))
    assert float(torch.cat(residuals).std()) == pytest.approx(1.0, abs=0.04)


def test_bright_tissue_is_about_one_whatever_the_contrast(anatomies):
    levels = []
    for number in range(30):
        pair = draw_cubes(anatomies, replace(SETTINGS, n_cubes=1), seeded(number, "level"))
        if pair.brain.float().mean() > 0.3:
            levels.append(float(pair.truth[pair.brain].quantile(0.9)))
    assert len(levels) > 8
    assert 0.8 < sorted(levels)[len(levels) // 2] < 1.25
    assert 0.3 < min(levels) < max(levels) < 2.5


def test_some_heads_keep_their_skull_and_some_lose_it(anatomies):
    outside = []
    for number in range(24):
        pair = draw_cubes(anatomies, replace(SETTINGS, n_cubes=1), seeded(number, "skull"))
        far = torch.nn.functional.max_pool3d(pair.brain[:, None].float(), 9, 1, 4)[:, 0] == 0
        if far.any():
            outside.append(float(pair.truth[far].mean()))
    assert any(value < 1e-6 for value in outside)
    assert any(value > 0.05 for value in outside)


def test_curves_may_turn_the_contrast_over(anatomies):
    dark, bright = torch.tensor(0.25), torch.tensor(1.0)
    order = [float(curve(bright) - curve(dark)) for curve in (Curve(seeded(n, "curve")) for n in range(60))]
    assert min(order) < -0.2 < 0.2 < max(order)


def test_labels_are_painted_as_weightings_show_tissues():
    rows = torch.stack([label_levels((None, "CSF", "GM", "WM"), seeded(n, "levels")) for n in range(300)])
    assert (rows[:, 0] == 0).all()
    csf_brightest = (rows[:, 1] > rows[:, 2:].amax(1)).float().mean()
    white_brightest = (rows[:, 3] > rows[:, 1:3].amax(1)).float().mean()
    assert 0.2 < float(csf_brightest) < 0.45
    assert 0.4 < float(white_brightest) < 0.7


def test_smoothing_keeps_the_sum_and_widens_by_its_variance():
    image = torch.zeros((21, 21, 21))
    image[10, 10, 10] = 1.0
    out = smoothed(image, 0.9)
    assert float(out.sum()) == pytest.approx(1.0, abs=1e-5)
    along = torch.arange(-10.0, 11.0)
    assert float((out.sum((0, 1)) * along.square()).sum()) == pytest.approx(0.81, rel=0.02)


def test_what_cannot_be_cut_is_refused(head):
    with pytest.raises(BadInputError, match="no anatomies"):
        draw_cubes([], SETTINGS, seeded(0, "x"))
    with pytest.raises(BadInputError, match="no signal"):
        image_anatomy("dark", torch.zeros((8, 8, 8)), torch.ones((8, 8, 8), dtype=torch.bool))
    with pytest.raises(BadInputError, match="unknown meaning: \\[7\\]"):
        label_anatomy("odd", torch.tensor([[[0, 7]]]), {0: None})
    with pytest.raises(BadInputError, match="misstated"):
        replace(SETTINGS, misstated=2.0)
