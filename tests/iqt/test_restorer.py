import pytest
import torch

from iqt import FoldedUNet, Restorer, UNetSettings, conditions_of, regression_loss, wiener_start
from iqt.files import RestorerCard, TrainedRestorer, load_restorer, save_restorer
from mrcore.data.acquisition import gaussian_psf
from mrcore.errors import BadInputError
from mrcore.forward import axis_matrix
from mrcore.operators.separable import SeparableOp
from mrcore.random import seeded
from mrcore.scan_cubes import ScanCubes

SMALL = UNetSettings(widths=(8, 8, 8), n_blocks=(1, 1, 1), n_transformers=1, n_heads=2)
VOXEL_MM = (2.0, 2.0, 5.0)


def _net(settings=SMALL):
    torch.manual_seed(0)
    return Restorer(settings)


@pytest.fixture
def cubes():
    psf = gaussian_psf(VOXEL_MM)
    shape = (24, 24, 40)
    matrices = []
    for n, voxel, axis in zip(shape, VOXEL_MM, psf, strict=True):
        at = torch.arange(0.0, n, voxel).double().numpy() + (voxel - 1) / 2
        matrices.append(axis_matrix(n, at, 1.0, axis, voxel).float())
    operator = SeparableOp(tuple(matrices))
    generator = seeded(0, "cubes")
    coarse = torch.rand((2, 1, 6, 6, 10), generator=generator)
    truth = torch.nn.functional.interpolate(coarse, shape, mode="trilinear")[:, 0]
    sd = torch.tensor([0.02, 0.05])
    scan = operator(truth) + sd.reshape(-1, 1, 1, 1) * torch.randn((2, *operator.shape_out), generator=generator)
    brain = torch.zeros(truth.shape, dtype=torch.bool)
    brain[:, 6:18, 6:18, 8:32] = True
    return ScanCubes(truth, brain, scan.abs(), sd, operator, VOXEL_MM, 1.0)


def test_any_multiple_of_the_fold_comes_out_at_its_own_size():
    net = FoldedUNet(SMALL)
    assert SMALL.multiple == (8, 8, 10)
    for size in ((8, 16, 10), (16, 24, 30)):
        assert net(torch.zeros((2, 1, *size)), torch.zeros((2, 3))).shape == (2, *size)


def test_the_start_of_training_is_near_the_wiener_start(cubes):
    start = wiener_start(cubes.operator, cubes.scan, cubes.noise_sd, 1.0)
    restored = _net()(start, conditions_of(cubes.noise_sd, VOXEL_MM)).detach()
    assert 0 < float((restored - start).abs().mean()) < 0.05
    blurred = torch.nn.functional.interpolate(cubes.scan[:, None], cubes.truth.shape[1:])[:, 0]
    error, plain = ((x - cubes.truth)[cubes.brain].square().mean() for x in (start, blurred))
    assert float(error) < 0.7 * float(plain)


def test_attention_carries_what_is_far_beyond_the_convolutions():
    reach = {}
    for n_transformers in (0, 1):
        settings = UNetSettings(widths=(8, 8, 8), n_blocks=(1, 1, 1), n_transformers=n_transformers, n_heads=2)
        torch.manual_seed(0)
        net = FoldedUNet(settings).double()
        x = torch.randn((1, 1, 16, 16, 300), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        moved = x.clone()
        moved[..., :10] += 1
        with torch.no_grad():
            difference = (net(moved, torch.zeros((1, 3))) - net(x, torch.zeros((1, 3))))[..., -10:]
        reach[n_transformers] = float(difference.abs().max())
    assert reach[0] == 0
    assert reach[1] > 1e-9


def test_noise_and_voxel_are_told_apart():
    noisy, clean = conditions_of(torch.tensor([0.1, 0.02]), VOXEL_MM)
    assert float(noisy[0]) > float(clean[0]) + 0.5
    thick = conditions_of(torch.tensor([0.1]), (2.0, 2.0, 6.0))
    assert float(thick[0, 2]) > float(noisy[2]) + 0.3
    assert float(thick[0, 1]) == pytest.approx(float(noisy[1]))


def test_errors_outside_the_brain_count_little(cubes):
    net = _net()

    def loss_of_error(where):
        truth = cubes.truth.clone()
        truth[where] += 1.0
        moved = ScanCubes(truth, cubes.brain, cubes.scan, cubes.noise_sd, cubes.operator, VOXEL_MM, 1.0)
        with torch.no_grad():
            return float(regression_loss(net, moved)) - float(regression_loss(net, cubes))

    inside, outside = (0, 12, 12, 20), (0, 4, 20, 20)
    assert loss_of_error(inside) > 10 * abs(loss_of_error(outside))


def test_a_network_comes_back_from_its_file(tmp_path):
    card = RestorerCard(({"name": "a", "sha256": "0", "licence": "CC0"},), ("b",), ((1, 2), (3, 5)), (10, 50), 7, 0)
    net = _net()
    path = save_restorer(TrainedRestorer(net, card), tmp_path / "net.safetensors", dtype=torch.float32)
    again = load_restorer(path)
    x, told = torch.rand((1, 8, 8, 10)), torch.zeros((1, 3))
    with torch.no_grad():
        assert torch.equal(again.net(x, told), net(x, told))
    assert again.card.n_steps == 7
    assert again.card.sources[0]["licence"] == "CC0"
    with pytest.raises(BadInputError, match="exists"):
        save_restorer(TrainedRestorer(net, card), path)


def test_other_files_are_no_networks(tmp_path):
    with pytest.raises(BadInputError, match="no such file"):
        load_restorer(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"0123456789")
    with pytest.raises(BadInputError, match="not a safetensors"):
        load_restorer(tmp_path / "bad.safetensors")
