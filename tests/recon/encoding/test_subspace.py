import pytest
import torch

from mrcore.errors import BadInputError
from mrcore.signals.epg import fisp_signals
from recon.encoding.subspace import Subspace, compress, expand, subspace_of
from recon.files.sequences import delics_sequence


def signals(n=50, frames=20, dtype=torch.complex128):
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(n, 6, dtype=dtype, generator=generator) @ torch.diag(10.0 ** -torch.arange(6.0)).to(dtype)
    return mix @ torch.randn(6, frames, dtype=dtype, generator=generator) + 1.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_the_energy_left_out_is_what_projection_loses(dtype):
    x = signals(dtype=dtype)
    subspace = subspace_of(x, 3)
    lost = (expand(subspace, compress(subspace, x)) - x).abs().square().sum() / x.abs().square().sum()
    assert subspace.energy_left_out == pytest.approx(lost.item(), rel=1e-6)
    singular = torch.linalg.svdvals(x) ** 2
    assert subspace.energy_left_out == pytest.approx((singular[3:].sum() / singular.sum()).item(), rel=1e-6)


def test_complex_bases_are_conjugated_on_one_side_only():
    x = signals()
    subspace = subspace_of(x, 7)  # all energy: six directions and the constant
    assert torch.allclose(expand(subspace, compress(subspace, x)), x, atol=1e-8)
    coefficients = torch.randn(5, 7, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))
    left = torch.vdot(x[:5].reshape(-1), expand(subspace, coefficients).reshape(-1))
    right = torch.vdot(compress(subspace, x[:5]).reshape(-1), coefficients.reshape(-1))
    assert torch.allclose(left, right)


def test_real_bases_serve_complex_signals():
    subspace = subspace_of(signals(dtype=torch.float64).float(), 7)
    x = signals(dtype=torch.float64) * (0.6 + 0.8j)
    assert torch.allclose(expand(subspace, compress(subspace, x)), x, atol=1e-4)


def test_blocks_give_the_same_subspace():
    x = signals(dtype=torch.float64)
    whole, parts = subspace_of(x, 3), subspace_of(iter(x.split(17)), 3)
    assert torch.allclose(whole.basis @ whole.basis.mT, parts.basis @ parts.basis.mT, atol=1e-10)


def test_five_directions_hold_the_train_of_delics():
    t2_s = torch.logspace(-2, 0.2, 30, dtype=torch.float64)
    t1_s = torch.logspace(-0.5, 0.7, 30, dtype=torch.float64)
    t1_s, t2_s = (axis.reshape(-1) for axis in torch.meshgrid(t1_s, t2_s, indexing="ij"))
    x = fisp_signals(delics_sequence(), t1_s[t2_s <= t1_s], t2_s[t2_s <= t1_s], tolerance=1e-3)
    assert 3e-4 < subspace_of(x, 5).energy_left_out < 3e-3
    assert subspace_of(x, 10).energy_left_out < 1e-4


def test_what_is_no_subspace_is_refused():
    with pytest.raises(BadInputError, match="rank"):
        subspace_of(signals(), 21)
    with pytest.raises(BadInputError, match="finite"):
        subspace_of(signals() * float("nan"), 2)
    with pytest.raises(BadInputError, match="orthonormal"):
        Subspace(torch.ones(5, 2), torch.ones(5))
