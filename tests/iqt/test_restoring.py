import pytest
import torch

from iqt import Restorer, UNetSettings
from iqt.restoring import restore, tethered
from mrcore.data.acquisition import gaussian_psf
from mrcore.errors import BadInputError
from mrcore.forward import axis_matrix
from mrcore.operators.separable import SeparableOp
from mrcore.random import seeded

VOXEL_MM = (2.0, 2.0, 5.0)


@pytest.fixture
def operator():
    matrices = []
    for n, voxel, axis in zip((22, 26, 35), VOXEL_MM, gaussian_psf(VOXEL_MM), strict=True):
        at = torch.arange(0.0, n, voxel).double().numpy() + (voxel - 1) / 2
        matrices.append(axis_matrix(n, at, 1.0, axis, voxel).float())
    return SeparableOp(tuple(matrices))


@pytest.fixture
def scan(operator):
    truth = torch.rand(operator.shape_in, generator=seeded(0, "truth"))
    return operator(truth) + 0.02 * torch.randn(operator.shape_out, generator=seeded(0, "noise"))


def _net():
    torch.manual_seed(0)
    net = Restorer(UNetSettings(widths=(8, 8, 8), n_blocks=(1, 1, 1), n_transformers=1, n_heads=2))
    with torch.no_grad():
        net.net.head.weight.mul_(30)
    return net


def test_any_size_comes_out_at_the_lattice(operator, scan):
    done = restore(_net(), operator, scan, 0.02, VOXEL_MM, 1.0, n_mirrored=1)
    assert done.image.shape == done.start.shape == operator.shape_in
    assert done.spread is None
    assert float((done.image - done.start.clamp_min(0)).abs().max()) > 1e-3


def test_mirroring_scan_and_operator_mirrors_the_mean_of_all_copies(operator, scan):
    # On a lattice that needs no padding; the operator is symmetric but for its matrices' order.
    sized = SeparableOp(tuple(m[:, :n] for m, n in zip(operator.matrices, (16, 24, 30), strict=True)))
    mirrored = SeparableOp(tuple(m.flip(0).flip(1) for m in sized.matrices))
    one = restore(_net(), sized, scan, 0.02, VOXEL_MM, 1.0)
    two = restore(_net(), mirrored, scan.flip((0, 1, 2)), 0.02, VOXEL_MM, 1.0)
    torch.testing.assert_close(two.image.flip((0, 1, 2)), one.image, rtol=0, atol=2e-5)
    single = restore(_net(), sized, scan, 0.02, VOXEL_MM, 1.0, n_mirrored=1)
    assert float((single.image - one.image).abs().max()) > 1e-3
    assert float(one.spread.max()) > 1e-4


def test_the_tether_moves_the_image_to_the_scan_as_far_as_it_is_trusted(operator, scan):
    image = torch.rand(operator.shape_in, generator=seeded(1, "image"))
    misfits = [
        float((operator(tethered(image, operator, scan, 0.02, trust)) - scan).abs().mean())
        for trust in (1e-4, 0.05, 5.0)
    ]
    assert misfits[0] > misfits[1] > misfits[2]
    untouched = tethered(image, operator, operator(image), 0.02, 0.05)
    torch.testing.assert_close(untouched, image, rtol=0, atol=1e-5)


def test_what_does_not_fit_is_refused(operator, scan):
    with pytest.raises(BadInputError, match="operator makes scans"):
        restore(_net(), operator, scan[1:], 0.02, VOXEL_MM, 1.0)
    with pytest.raises(BadInputError, match="copies are 1 to 8"):
        restore(_net(), operator, scan, 0.02, VOXEL_MM, 1.0, n_mirrored=9)
    with pytest.raises(BadInputError, match="positive sds"):
        tethered(scan, operator, scan, 0.0, 1.0)
