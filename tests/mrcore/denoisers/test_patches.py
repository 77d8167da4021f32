"""Training patches: contrasts, planes, noise, and that training on them denoises."""

import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid
from mrcore.denoisers.patches import (
    PatchSettings,
    denoising_loss,
    draw_patches,
    image_anatomy,
    label_anatomy,
    maps_anatomy,
    planes_of,
)
from mrcore.denoisers.unet import DenoiserNet, DenoiserSettings, denoise
from mrcore.errors import BadInputError
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from mrcore.training import TrainSettings, train


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(64), skull=True)


@pytest.fixture(scope="module")
def anatomies(head):
    labels = head.tissues.prob.argmax(0).float() + 1
    return [
        image_anatomy("image", 730 * head.image.data, head.grid),
        maps_anatomy("maps", head.t1_s, head.t2_s, head.pd, (0, 1, 2)),
        label_anatomy("labels", labels * head.mask, head.grid),
    ]


@pytest.mark.parametrize("n_dims", [2, 3])
def test_every_kind_of_head_gives_patches_on_one_scale(anatomies, n_dims):
    for anatomy in anatomies:
        drawn = draw_patches([anatomy], PatchSettings(n_dims, 24, 30), seeded(0, "patches"))
        assert drawn.clean.shape == (30, *[24] * n_dims)
        assert torch.isfinite(drawn.noisy).all()
        assert float(drawn.clean.min()) >= 0
        brightest = drawn.clean.reshape(30, -1).quantile(0.99, dim=1)
        assert 0.5 < float(brightest.median()) < 1.5


def test_noise_has_its_sd_and_its_range(anatomies):
    settings = PatchSettings(2, 32, 200, noise_range=(0.02, 0.05))
    drawn = draw_patches(anatomies, settings, seeded(1, "noise"))
    assert drawn.sigma.min() >= 0.02
    assert drawn.sigma.max() <= 0.05
    assert drawn.sigma.max() - drawn.sigma.min() > 0.025
    measured = (drawn.noisy - drawn.clean).reshape(200, -1).std(1)
    torch.testing.assert_close(measured, drawn.sigma, rtol=0.12, atol=0)


def test_some_strong_noise_is_rician(anatomies):
    drawn = draw_patches(anatomies, PatchSettings(2, 32, 200, noise_range=(0.1, 0.15)), seeded(2, "noise"))
    is_magnitude = drawn.noisy.reshape(200, -1).amin(1) >= 0
    assert 0.15 < float(is_magnitude.float().mean()) < 0.45


def test_seed_decides_the_batch(anatomies):
    settings = PatchSettings(3, 16, 4)
    first, same, other = (draw_patches(anatomies, settings, seeded(n, "x")) for n in (0, 0, 1))
    assert torch.equal(first.noisy, same.noisy)
    assert not torch.equal(first.noisy, other.noisy)


def test_contrasts_of_one_head_differ(anatomies):
    for anatomy in anatomies:
        images = [anatomy.draw_contrast(seeded(n, "contrast"))(anatomy.sampled) for n in range(8)]
        similar = np.corrcoef(torch.stack(images).numpy())
        assert similar.min() < 0.9


def test_noise_outside_the_head_of_maps_is_not_learnt():
    pd = torch.zeros(40, 40, 40)
    pd[10:30, 10:30, 10:30] = 1.0
    pd += 0.01 * torch.rand(pd.shape, generator=seeded(0, "pd"))
    anatomy = maps_anatomy("maps", torch.full(pd.shape, 4.0), torch.full(pd.shape, 2.0), pd, (0, 1, 2))
    assert float(anatomy.layers[2, :9].abs().max()) == 0
    assert bool((anatomy.centres >= 10).all())
    assert bool((anatomy.centres < 30).all())


def test_thick_slices_are_cut_in_plane_only(head):
    thick = Grid((8, 64, 64), np.diag([6.0, 1.0, 1.0, 1.0]))
    assert planes_of(thick) == (0,)
    assert planes_of(head.grid) == (0, 1, 2)
    anatomy = image_anatomy("thick", head.image.data[28:36], thick)
    assert draw_patches([anatomy], PatchSettings(2, 16, 2), seeded(0, "x")).clean.shape == (2, 16, 16)
    with pytest.raises(BadInputError, match="3-D patches"):
        draw_patches([anatomy], PatchSettings(3, 16, 2), seeded(0, "x"))


def test_patches_lie_where_the_image_is(head):
    """An image of one bright ball: every patch is centred in it."""
    position = torch.stack(torch.meshgrid(*[torch.arange(64.0)] * 3, indexing="ij"))
    ball = ((position - 20).square().sum(0) < 12**2).float()
    anatomy = image_anatomy("ball", ball, head.grid)
    drawn = draw_patches([anatomy], PatchSettings(3, 32, 40), seeded(4, "ball"))
    middle = slice(14, 18)
    assert float(drawn.clean[:, middle, middle, middle].amax((1, 2, 3)).min()) > 0.4


def test_heads_that_cannot_be(head):
    with pytest.raises(BadInputError, match="more than 99 %"):
        image_anatomy("empty", torch.zeros(8, 8, 8), head.grid)
    with pytest.raises(BadInputError, match="finite"):
        maps_anatomy("maps", torch.full((8, 8, 8), torch.nan), torch.ones(8, 8, 8), torch.ones(8, 8, 8), (0,))
    with pytest.raises(BadInputError, match="different values"):
        label_anatomy("image", torch.rand(20, 20, 20), head.grid)


@pytest.mark.parametrize("wrong", [(1, 8, 1), (2, 0, 1), (2, 8, 0)])
def test_patches_that_cannot_be(wrong):
    with pytest.raises(BadInputError):
        PatchSettings(*wrong)
    with pytest.raises(BadInputError, match="range"):
        PatchSettings(2, 8, 1, noise_range=(0.1, 0.1))


def test_training_on_patches_denoises_another_head(anatomies):
    settings, patches = DenoiserSettings(2, (16, 16), 1), PatchSettings(2, 32, 8, (0.05, 0.15))
    net = DenoiserNet(settings, seeded(0, "net"))
    steps = TrainSettings(100, learning_rate=8e-3, n_warmup=10, ema=0.9)
    trained = train(net, denoising_loss, lambda generator: draw_patches(anatomies[:1], patches, generator), steps)
    assert np.mean(trained.history[-40:]) < 0.85 * np.mean(trained.history[:5])
    clean = digital_head(head_grid(64), seed=7).image.data[:, :, 30:34].movedim(2, 0)
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=seeded(9, "noise"))
    error = (denoise(trained.model, noisy, 0.1) - clean).square().mean()
    assert float(error) < 0.5 * 0.1**2
