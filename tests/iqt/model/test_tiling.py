import pytest
import torch

from iqt import FoldedUNet, UNetSettings
from iqt.model.tiling import forward_in_tiles
from mrcore.errors import BadInputError


def _net(**more):
    torch.manual_seed(0)
    return FoldedUNet(UNetSettings(widths=(8, 8, 8), n_blocks=(1, 2, 1), n_transformers=1, n_heads=2, **more)).double()


def _images(n_images=1):
    return torch.randn((2, n_images, 32, 40, 40), dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("tile", "origin"), [((4, 4, 4), (0, 0, 0)), ((5, 7, 3), (2, 6, 1)), ((64, 64, 64), (0, 0, 0))]
)
def test_tiled_equals_whole_wherever_tiles_begin(tile, origin):
    net, images, told = _net(), _images(), torch.tensor([[0.1, 0.2, 0.3], [1.0, -1.0, 0.0]])
    with torch.no_grad():
        whole = net(images, told)
        tiled = forward_in_tiles(net, images, told, tile=tile, origin=origin)
    assert float((tiled - whole).abs().max()) < 1e-12
    assert float(whole.abs().max()) > 1e-3


def test_time_and_several_images_pass_through_tiles():
    net, images, told = _net(n_images=2, timed=True), _images(2), torch.zeros((2, 3))
    time = torch.tensor([0.1, 0.9], dtype=torch.float64)
    with torch.no_grad():
        whole = net(images, told, time)
        tiled = forward_in_tiles(net, images, told, time, tile=(5, 5, 5))
        other = net(images, told, 1 - time)
    assert float((tiled - whole).abs().max()) < 1e-12
    assert float((other - whole).abs().max()) > 1e-6


def test_a_halo_one_short_would_show(monkeypatch):
    from iqt.model import tiling

    whole_tiled = tiling._tiled
    monkeypatch.setattr(
        tiling, "_tiled", lambda stage, x, halo, tile, origin: whole_tiled(stage, x, halo - 1, tile, origin)
    )
    net, images, told = _net(), _images(), torch.zeros((2, 3))
    with torch.no_grad():
        difference = (forward_in_tiles(net, images, told, tile=(4, 4, 4)) - net(images, told)).abs().max()
    assert float(difference) > 1e-6


def test_tiles_without_positions_are_refused():
    with pytest.raises(BadInputError, match="at least one position"):
        forward_in_tiles(_net(), _images(), torch.zeros((2, 3)), tile=(0, 4, 4))
