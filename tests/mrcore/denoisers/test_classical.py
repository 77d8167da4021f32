import pytest
import torch

from mrcore.denoisers.classical import tv_denoiser
from mrcore.denoisers.files import Denoiser, ModelCard, shipped_denoiser
from mrcore.denoisers.trained import deepinv_denoiser, sliced_denoiser, volume_denoiser
from mrcore.denoisers.unet import DenoiserNet, DenoiserSettings, denoise
from mrcore.errors import BadInputError
from mrcore.random import seeded

SHAPE = (20, 24, 16)


def net(n_dims):
    """A net that does something: weights at random, the last layer too."""
    made = DenoiserNet(DenoiserSettings(n_dims, (4, 6), 1), seeded(0, "net"))
    torch.nn.init.normal_(made.get_parameter("tail.weight"), std=0.05, generator=seeded(1, "tail"))
    return Denoiser(made.requires_grad_(False), ModelCard((), (0.005, 0.15), 0, 0))


def image(shape=SHAPE, sigma=0.1):
    x, y, z = torch.meshgrid(*[torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in shape], indexing="ij")
    clean = (x**2 + y**2 + z**2 < 0.6).float() + 0.5 * (x > 0.2)
    return clean, clean + sigma * torch.randn(shape, generator=seeded(2, "noise"))


DENOISERS = {
    "slices": lambda: sliced_denoiser(net(2)),
    "volume": lambda: volume_denoiser(net(3)),
    "tv": tv_denoiser,
    "deepinv": lambda: deepinv_denoiser(lambda x, sigma: x / (1 + sigma)),
}


@pytest.mark.parametrize("name", DENOISERS)
def test_the_unit_of_the_image_does_not_matter(name):
    denoiser, (_, noisy) = DENOISERS[name](), image()
    out = denoiser(noisy, 0.1)
    assert out.shape == noisy.shape
    assert not torch.allclose(out, noisy)
    assert torch.allclose(denoiser(40 * noisy, 4.0), 40 * out, atol=1e-3)
    assert not torch.allclose(denoiser(noisy, 0.05), out, atol=1e-4)
    assert torch.equal(denoiser(torch.zeros(SHAPE), 0.1), torch.zeros(SHAPE))


@pytest.mark.parametrize("shape", [SHAPE, (32, 32, 1)])
def test_total_variation_takes_noise_away(shape):
    clean, noisy = image(shape)
    assert (tv_denoiser()(noisy, 0.1) - clean).square().mean() < 0.5 * (noisy - clean).square().mean()


def test_the_shipped_net_takes_noise_away_in_a_slice():
    clean, noisy = image((48, 48, 1))
    denoised = sliced_denoiser(shipped_denoiser(2))(noisy, 0.1)
    assert (denoised - clean).square().mean() < 0.25 * (noisy - clean).square().mean()


def test_slices_across_all_axes_are_averaged_and_one_slice_is_left_as_it_is():
    _, noisy = image()
    one_by_one = [sliced_denoiser(net(2), (axis,))(noisy, 0.1) for axis in range(3)]
    assert torch.allclose(sliced_denoiser(net(2))(noisy, 0.1), torch.stack(one_by_one).mean(0), atol=1e-6)
    _, flat = image((20, 24, 1))
    assert torch.allclose(sliced_denoiser(net(2))(flat, 0.1)[..., 0], denoise(net(2).net, flat[..., 0], 0.1), atol=1e-6)


def test_nets_of_the_wrong_kind_are_refused():
    with pytest.raises(BadInputError, match="2-D net"):
        sliced_denoiser(net(3))
    with pytest.raises(BadInputError, match="3-D net"):
        volume_denoiser(net(2))
    with pytest.raises(BadInputError, match="X, Y, Z"):
        sliced_denoiser(net(2))(torch.ones(4, 4), 0.1)


def test_deepinv_sees_slices_of_unit_scale():
    seen = []

    def model(x, sigma):
        seen.append((tuple(x.shape), float(x.max()), sigma))
        return x

    _, noisy = image()
    assert torch.allclose(deepinv_denoiser(model)(7 * noisy, 0.7), 7 * noisy)
    ((shape, highest, sigma),) = seen
    assert shape == (16, 1, 20, 24)
    assert highest == pytest.approx(1)
    assert sigma == pytest.approx(0.1 / float(noisy.abs().max()))
