"""The plug-and-play prior: its rounds, what it leaves to the data, and what it does to a fit."""

import dataclasses
import math

import pytest
import torch
from operators import grid

from inr.fields.multilevel import FieldSettings
from inr.fitting.fit import FitSettings, fit
from inr.fitting.prior import PlugAndPlay, SplittingSettings
from inr.scans.single import OneScan
from mrcore.data.acquisition import gaussian_psf
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator, predict
from mrcore.metrics.similarity import psnr
from mrcore.noise import add_noise
from mrcore.operators.separable import SeparableOp
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded

SD = 0.02


@pytest.fixture(scope="module")
def case():
    head = digital_head(head_grid(38, 190.0), seed=2)
    scan_grid = grid((38, 38, 19), (5.0, 5.0, 10.0))
    operator = imaging_operator(head.grid, scan_grid, gaussian_psf(scan_grid.spacing_mm))
    scan = add_noise(predict(operator, head.image.data), SD, seeded(1, "scan"))
    return head, OneScan(scan, operator, SD)


def identity_data(value):
    eye = torch.eye(4)
    return OneScan(torch.full((4, 4, 4), value), SeparableOp((eye, eye, eye)), 0.1)


def test_levels_fall_geometrically_from_first_to_last():
    settings = SplittingSettings(n_rounds=4, first_sigma=0.16, last_sigma=0.02)
    assert settings.sigmas == pytest.approx((0.16, 0.08, 0.04, 0.02))


def test_one_round_is_the_weighted_mean_of_scan_and_denoised_image():
    """With A = 1 the image of a round is (y / sd^2 + w z) / (1 / sd^2 + w), w = strength / sigma^2."""
    settings = SplittingSettings(n_rounds=1, first_sigma=0.05, last_sigma=0.05, strength=0.25)
    prior = PlugAndPlay(lambda image, sigma: torch.full_like(image, 2.0), settings)
    everywhere = torch.ones(4, 4, 4, dtype=torch.bool)
    pull = prior.pull(identity_data(1.0), torch.zeros(1, 4, 4, 4), everywhere)
    assert pull.weight == pytest.approx(100.0)
    assert torch.allclose(pull.target, torch.tensor(2.0))
    assert torch.allclose(pull.start, torch.tensor((100 * 1.0 + 100 * 2.0) / 200), atol=1e-4)


def test_strength_falls_with_the_root_of_noise_beyond_the_quiet():
    settings = SplittingSettings(n_rounds=1, first_sigma=0.05, last_sigma=0.05, strength=0.25, quiet_sd=0.1)
    assert settings.strength_at(0.03) == settings.strength_at(0.1) == 0.25
    assert settings.strength_at(0.4) == pytest.approx(0.125)
    prior = PlugAndPlay(lambda image, sigma: torch.full_like(image, 2.0), settings)
    everywhere = torch.ones(4, 4, 4, dtype=torch.bool)
    loud = dataclasses.replace(identity_data(1.0), noise_sd=0.4)
    assert prior.pull(loud, torch.zeros(1, 4, 4, 4), everywhere).weight == pytest.approx(50.0)


def test_denoiser_sees_each_level_once_and_nothing_outside_the_foreground():
    seen = []

    def denoise(image, sigma):
        seen.append(sigma)
        return image + 5.0

    half = torch.ones(4, 4, 4, dtype=torch.bool)
    half[2:] = False
    pull = PlugAndPlay(denoise, SplittingSettings(n_rounds=3)).pull(identity_data(1.0), torch.zeros(1, 4, 4, 4), half)
    assert seen == pytest.approx([0.15, math.sqrt(0.15 * 0.045), 0.045])
    assert pull.start[0, 2:].abs().max() == 0
    assert pull.target[0, 2:].abs().max() == 0


def test_mirror_images_come_in_turn():
    ramps = []

    def denoise(image, sigma):
        ramps.append(tuple(float(torch.diff(image.mean([b for b in range(3) if b != a])).sign()[0]) for a in range(3)))
        return image

    ramp = torch.arange(4.0)
    image = (ramp[:, None, None] + ramp[:, None] + ramp)[None]
    data = dataclasses.replace(identity_data(1.0), scan=image[0])
    everywhere = torch.ones(4, 4, 4, dtype=torch.bool)
    pull = PlugAndPlay(denoise, SplittingSettings(n_rounds=8)).pull(data, image, everywhere)
    assert len(set(ramps)) == 8
    assert torch.allclose(pull.start, image, atol=1e-4), "the identity changes nothing"


def test_data_decide_what_they_show_and_the_prior_the_rest(case):
    head, data = case
    sign = torch.ones_like(head.image.data)
    sign[..., 1::2] = -1.0  # the scan's voxels are 10 mm thick: it cannot see this
    likely = 0.5 * head.image.data + 0.2 * sign
    everywhere = torch.ones(head.grid.shape, dtype=torch.bool)
    prior = PlugAndPlay(lambda image, sigma: likely, SplittingSettings(n_rounds=1, n_cg=30))
    found = prior.pull(data, torch.zeros(1, *head.grid.shape), everywhere).start[0]
    residual = ((data.scan - data.operator(found)) / SD)[data.scan > 0.3]
    assert abs(float(residual.mean())) < 0.3, "half of the intensity was wrong"
    assert float(((found - head.image.data) * sign)[head.mask].mean()) == pytest.approx(0.2, abs=0.02)


def test_better_denoiser_makes_a_better_fit(case):
    head, data = case
    truth = head.image.data
    settings = FitSettings(field=FieldSettings(spacings_mm=(24.0, 12.0, 6.0)), n_steps=10, learning_rate=0.005)
    start = data.operator.H(data.scan)[None] * 2.0
    scores = []
    for denoise in (lambda image, sigma: image, lambda image, sigma: 0.5 * image + 0.5 * _toward(image, truth)):
        prior = PlugAndPlay(denoise, SplittingSettings(n_rounds=8))
        done = fit(data, head.grid, start, head.mask, head.tissues, 0, settings, prior=prior)
        scores.append(psnr(truth, done.image, head.mask))
    assert scores[1] > scores[0] + 3


def _toward(image, truth):
    """Return the mirror image of `truth` that is most like `image`."""
    sides = [truth.flip([a for a in range(3) if n >> a & 1]) for n in range(8)]
    return min(sides, key=lambda side: float((side - image).square().sum()))


@pytest.mark.parametrize(
    "bad",
    [{"first_sigma": 0.01}, {"last_sigma": 0.0}, {"strength": 0.0}, {"quiet_sd": 0.0}, {"n_rounds": 0}, {"n_cg": 0}],
    ids=str,
)
def test_settings_that_make_no_rounds(bad):
    with pytest.raises(BadInputError, match="splitting needs"):
        SplittingSettings(**bad)
