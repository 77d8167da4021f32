"""The denoising network: sizes, scale, slabs, noise level, files."""

import json

import pytest
import torch
from safetensors.torch import save_file

from mrcore.denoisers.files import Denoiser, ModelCard, TrainingSource, load_denoiser, save_denoiser, shipped_denoiser
from mrcore.denoisers.unet import DenoiserNet, DenoiserSettings, denoise, denoise_slices, geometric
from mrcore.errors import BadInputError
from mrcore.random import seeded

SMALL = {2: DenoiserSettings(2, (4, 6), 1), 3: DenoiserSettings(3, (4, 6), 1)}
CARD = ModelCard((TrainingSource("a.nii.gz", "ab12", "CC0"),), (0.01, 0.15), 3, 7, {"slice": 31.5}, ("a note",))


def busy_net(settings, seed=0, dtype=torch.float32):
    """A net whose every weight counts; as initialised it returns its input."""
    net = DenoiserNet(settings, seeded(seed, "test"))
    for number, parameter in enumerate(net.parameters()):
        n_in = parameter[0].numel()
        torch.nn.init.normal_(parameter, std=n_in**-0.5, generator=seeded(seed, f"weights {number}"))
    return net.to(dtype).eval().requires_grad_(False)


def image(*shape, dtype=torch.float32):
    return torch.rand(shape, generator=seeded(1, "image"), dtype=dtype)


def test_geometric_levels_have_one_ratio_and_both_ends():
    assert geometric(8.0, 1.0, 4) == pytest.approx((8, 4, 2, 1))
    assert geometric(0.3, 0.1, 1) == (0.3,)


@pytest.mark.parametrize("shape", [(1, 1), (7, 12), (16, 33), (3, 5, 11), (2, 3, 9, 9)])
def test_slices_of_any_size(shape):
    out = denoise(busy_net(SMALL[2]), image(*shape), 0.1)
    assert out.shape == shape
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 8, 11), (2, 4, 9, 3)])
def test_volumes_of_any_size(shape):
    assert denoise(busy_net(SMALL[3]), image(*shape), 0.1).shape == shape


def test_untrained_net_returns_its_input():
    x = image(9, 13)
    torch.testing.assert_close(denoise(DenoiserNet(SMALL[2], seeded(0, "test")), x, 0.1), x)


@pytest.mark.parametrize("factor", [1e-4, 7.0, 3e5])
def test_scaling_image_and_noise_scales_the_result(factor):
    net, x = busy_net(SMALL[3], dtype=torch.float64), image(9, 10, 11, dtype=torch.float64)
    expected = factor * denoise(net, x, 0.07)
    torch.testing.assert_close(denoise(net, factor * x, factor * 0.07), expected, rtol=1e-9, atol=0)
    # The net itself too, not only the scale taken out around it.
    level = torch.tensor([0.07], dtype=torch.float64)
    torch.testing.assert_close(net(factor * x[None], factor * level), factor * net(x[None], level), rtol=1e-9, atol=0)


def test_image_that_moves_by_the_stride_moves_the_result():
    net = busy_net(SMALL[2], dtype=torch.float64)
    n, far = SMALL[2].stride, SMALL[2].halo
    x = image(8 * far, 8 * far, dtype=torch.float64)
    inner = slice(2 * far, 4 * far)
    moved = denoise(net, x.roll((n, 0), (0, 1)), 0.1)
    torch.testing.assert_close(moved.roll((-n, 0), (0, 1))[inner, inner], denoise(net, x, 0.1)[inner, inner])


@pytest.mark.parametrize("settings", [SMALL[2], DenoiserSettings(2, (4, 5, 6), 2), DenoiserSettings(3, (4,), 1)])
def test_halo_is_as_far_as_the_net_sees_and_not_much_more(settings):
    n_dims = settings.n_dims
    net = busy_net(settings, dtype=torch.float64)
    shape = [4 * settings.halo, *[settings.stride] * (n_dims - 1)]
    x = image(1, *shape, dtype=torch.float64).requires_grad_()
    middle = 2 * settings.halo + 1
    net(x, torch.tensor([0.1], dtype=torch.float64))[0, middle].sum().backward()
    seen = x.grad[0].reshape(shape[0], -1).abs().amax(1).nonzero()
    reach = max(middle - int(seen.min()), int(seen.max()) - middle)
    assert settings.halo - 2 * settings.stride <= reach <= settings.halo


@pytest.mark.parametrize(("n_dims", "shape", "max_voxels"), [(3, (90, 7, 9), 60 * 63), (2, (5, 11, 130), 70 * 11)])
def test_slabs_change_nothing(n_dims, shape, max_voxels):
    net, x = busy_net(SMALL[n_dims]), image(*shape)
    whole = denoise(net, x, 0.1)
    assert (whole - x).abs().max() > 0.1
    torch.testing.assert_close(denoise(net, x, 0.1, max_voxels=max_voxels), whole, rtol=1e-5, atol=1e-5)


def test_memory_is_bounded_by_slabs():
    sizes = []
    net, x = busy_net(SMALL[3]), image(256, 6, 6)
    net.register_forward_pre_hook(lambda _, given: sizes.append(given[0].numel()))
    denoise(net, x, 0.1, max_voxels=100 * 36)
    assert len(sizes) > 2
    assert max(sizes) <= 100 * 36
    sizes.clear()
    denoise(net, x, 0.1, max_voxels=1)
    assert sum(sizes) <= 3 * x.numel()


def test_noise_level_matters_and_none_changes_nothing():
    net, x = busy_net(SMALL[2]), image(16, 16)
    assert (denoise(net, x, 0.02) - denoise(net, x, 0.2)).abs().max() > 1e-3
    assert torch.equal(denoise(net, x, 0.0), x)
    assert torch.equal(denoise(net, torch.zeros(8, 8), 0.1), torch.zeros(8, 8))


def test_slices_across_axes_are_averaged():
    net, x = busy_net(SMALL[2]), image(8, 9, 10)
    across_y = torch.stack([denoise(net, x, 0.1)])  # slices across x, all on one scale
    torch.testing.assert_close(denoise_slices(net, x, 0.1, axes=(0,)), across_y[0])
    each = [denoise_slices(net, x, 0.1, axes=(axis,)) for axis in range(3)]
    torch.testing.assert_close(denoise_slices(net, x, 0.1), sum(each) / 3)
    assert (each[0] - each[1]).abs().max() > 1e-3


def test_same_generator_same_net():
    first, second = (DenoiserNet(SMALL[2], seeded(5, "net")).head.weight for _ in range(2))
    assert torch.equal(first, second)
    before = torch.get_rng_state()
    DenoiserNet(SMALL[3], seeded(6, "net"))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("x", "sigma", "match"),
    [
        (torch.rand(4), 0.1, "2 axes"),
        (torch.rand(4, 4, dtype=torch.complex64), 0.1, "real image"),
        (torch.rand(4, 4), -0.1, "negative"),
        (torch.rand(4, 4), float("nan"), "finite"),
    ],
)
def test_images_and_levels_that_cannot_be(x, sigma, match):
    with pytest.raises(BadInputError, match=match):
        denoise(busy_net(SMALL[2]), x, sigma)


def test_slices_need_a_net_for_slices():
    with pytest.raises(BadInputError, match="2-D net"):
        denoise_slices(busy_net(SMALL[3]), image(4, 4, 4), 0.1)


@pytest.mark.parametrize("sizes", [(4, (4,), 1), (2, (), 1), (2, (4, 0), 1), (3, (4,), 0)])
def test_sizes_that_cannot_be(sizes):
    with pytest.raises(BadInputError):
        DenoiserSettings(*sizes)


def test_file_holds_net_and_card(tmp_path):
    made = Denoiser(busy_net(SMALL[3]), CARD)
    path = save_denoiser(made, tmp_path / "net.safetensors")
    read = load_denoiser(path)
    x = image(6, 7, 8)
    assert torch.equal(read(x, 0.1), made(x, 0.1))
    assert read.card == CARD
    assert read.net.settings == SMALL[3]
    assert path.stat().st_mode == (tmp_path / "net.json").stat().st_mode
    beside = json.loads((tmp_path / "net.json").read_text())
    assert beside["Card"]["sources"][0] == {"name": "a.nii.gz", "sha256": "ab12", "licence": "CC0"}
    assert beside["Card"]["held_out"] == {"slice": 31.5}


def test_half_precision_halves_the_file(tmp_path):
    made = Denoiser(busy_net(DenoiserSettings(2, (32, 32), 1)), CARD)
    full = save_denoiser(made, tmp_path / "full.safetensors")
    half = save_denoiser(made, tmp_path / "half.safetensors", dtype=torch.float16)
    assert half.stat().st_size < 0.6 * full.stat().st_size
    x = image(16, 16)
    torch.testing.assert_close(load_denoiser(half)(x, 0.1), made(x, 0.1), rtol=0, atol=0.02)


def test_nothing_is_written_over(tmp_path):
    made = Denoiser(busy_net(SMALL[2]), CARD)
    save_denoiser(made, tmp_path / "net.safetensors")
    with pytest.raises(BadInputError, match="exists"):
        save_denoiser(made, tmp_path / "net.safetensors")
    save_denoiser(made, tmp_path / "net.safetensors", force=True)
    with pytest.raises(BadInputError, match=r"\.safetensors"):
        save_denoiser(made, tmp_path / "net.pt")


def rewritten(path, **header):
    """Write the file at `path` anew with other keys in its header."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        old, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(weights, path, metadata={**old, **header})


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ({"format": "other"}, "no mrkit denoiser"),
        ({"version": "99"}, "version 99"),
        ({"settings": json.dumps({"n_dims": 2, "widths": [5, 6], "n_blocks": 1})}, "do not fit"),
        ({"settings": "{"}, "do not fit"),
        ({"card": "{}"}, "do not fit"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, header, match):
    path = save_denoiser(Denoiser(busy_net(SMALL[2]), CARD), tmp_path / "net.safetensors")
    rewritten(path, **header)
    with pytest.raises(BadInputError, match=match):
        load_denoiser(path)


def test_damaged_and_missing_files_are_refused(tmp_path):
    path = save_denoiser(Denoiser(busy_net(SMALL[2]), CARD), tmp_path / "net.safetensors")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(BadInputError, match="damaged"):
        load_denoiser(path)
    with pytest.raises(BadInputError, match="no such file"):
        load_denoiser(tmp_path / "none.safetensors")
    with pytest.raises(BadInputError, match="no such file"):
        shipped_denoiser(4)
