"""TV + Hessian: hand values of the second order, swells that total variation breaks into steps, settings."""

import math

import pytest
import torch
from operators import grid

from inr.fitting.tv_hessian import TvHessianSettings, for_noise, hessian_variation, tv_hessian
from inr.scans.single import OneScan
from inr.voxels import TvSettings, cubic, huber_tv
from mrcore.data.acquisition import gaussian_psf
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator, predict
from mrcore.noise import add_noise
from mrcore.random import seeded

F64 = torch.float64
QUICK = TvHessianSettings(n_steps=6)


def test_second_differences_along_an_axis():
    # x = 0, 2, 4, 6 mm of x^2: 2 per mm^2 within; at the faces the image goes on flat: 1 and -5.
    image = (torch.arange(4, dtype=F64) * 2).square()[:, None, None].expand(4, 3, 5)
    got = hessian_variation(image, (2.0, 0.5, 3.0), 0.0).item()
    assert got == pytest.approx((1 + 2 + 2 + 5) * 15 * 3.0)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_mixed_derivatives_count_twice(axes):
    # One corner of 2 x 2 voxels is 1: (xx, yy, xy) are (0, 0, 1), (0, 1, 0), (1, 0, 0) and (-1, -1, 0) per step.
    image = torch.tensor([[0.0, 0.0], [0.0, 1.0]], dtype=F64)[..., None].permute(axes)
    spacing_mm = tuple((2.0, 3.0, 4.0)[a] for a in axes)
    expected = 24 * (math.sqrt(2) / 6 + 1 / 9 + 1 / 4 + math.sqrt(1 / 16 + 1 / 81))
    assert hessian_variation(image, spacing_mm, 0.0).item() == pytest.approx(expected)


def test_smoothing_and_leading_axes():
    flat = torch.full((2, 3, 4, 5), 0.7, dtype=F64)
    assert hessian_variation(flat, (1.0, 2.0, 0.5), 0.1).item() == pytest.approx(0.1 * 2 * 60)


@pytest.fixture(scope="module")
def slope():
    """A block whose brightness swells along the slices, and a noisy scan of it."""
    source = grid((24, 24, 40), (1.0, 1.0, 1.0))
    truth = torch.zeros(source.shape)
    truth[4:20, 4:20, 4:36] = 0.65 - 0.35 * torch.cos(torch.linspace(0, 2 * math.pi, 32))
    scan_grid = grid((15, 15, 8), (1.6, 1.6, 5.0))
    operator = imaging_operator(source, scan_grid, gaussian_psf(scan_grid.spacing_mm))
    scan = add_noise(predict(operator, truth), 0.05, seeded(0, "slope"))
    start = cubic(Volume(scan, scan_grid), source).data
    return source, truth, OneScan(scan, operator, 0.05), start


def test_slopes_are_better_than_with_total_variation_alone(slope):
    source, truth, data, start = slope
    inside = (slice(7, 17), slice(7, 17), slice(8, 32))
    both = tv_hessian(data, start[None], source.spacing_mm, TvHessianSettings(weight=1.0, hessian_weight=1.0))
    alone = huber_tv(data.operator, data.scan, data.noise_sd, start, source.spacing_mm, TvSettings(weight=3.0))
    errors = [(x - truth)[inside].square().mean().sqrt().item() for x in (both.x[0], alone.x)]
    assert errors[0] < 0.7 * errors[1]
    assert both.history[-1] < both.history[0]
    assert both.x.min().item() >= 0


def test_without_the_second_order_it_is_total_variation(slope):
    source, _, data, start = slope
    settings = TvHessianSettings(weight=1.5, hessian_weight=0.0, n_steps=10)
    mine = tv_hessian(data, start[None], source.spacing_mm, settings)
    other = huber_tv(data.operator, data.scan, data.noise_sd, start, source.spacing_mm, TvSettings(n_steps=10))
    assert torch.allclose(mine.x[0], other.x, atol=1e-5)
    assert mine.history == pytest.approx(other.history, rel=1e-5)


@pytest.mark.parametrize(
    "changed", [{"weight": 5.0}, {"hessian_weight": 5.0}, {"smoothing": 0.1}, {"n_steps": 7}, {"learning_rate": 0.01}]
)
def test_every_setting_changes_the_result(slope, changed):
    source, _, data, start = slope
    first = tv_hessian(data, start[None], source.spacing_mm, QUICK).x
    other = TvHessianSettings(**{"n_steps": 6, **changed})
    assert not torch.allclose(first, tv_hessian(data, start[None], source.spacing_mm, other).x, atol=1e-4)


@pytest.mark.parametrize("wrong", [{"weight": -1.0}, {"hessian_weight": -1.0}, {"n_steps": 0}, {"smoothing": 0.0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(BadInputError, match=r"TV \+ Hessian needs"):
        TvHessianSettings(**wrong)


def test_weights_fall_with_noise():
    base = TvHessianSettings(weight=2.0, hessian_weight=0.5)
    assert for_noise(base, 0.02) == base
    noisier = for_noise(base, 0.64)
    assert noisier.weight == pytest.approx(2.0 / 8)
    assert noisier.hessian_weight == pytest.approx(0.5 / 8)
    with pytest.raises(BadInputError, match="positive noise sd, got 0"):
        for_noise(base, 0.0)
