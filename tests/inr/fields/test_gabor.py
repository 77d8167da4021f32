"""The Gabor wavelet, its derivative, and the first state of its layers."""

import math

import pytest
import torch

from inr.fields.gabor import GaborLayer, LinearLayer, gabor

F64 = torch.float64


@pytest.mark.parametrize(
    ("u", "frequency", "decay", "expected"),
    [
        (0.0, 3.0, 1.0, 1.0),
        (math.pi / 2, 1.0, 0.0, 0.0),
        (math.pi, 1.0, 0.0, -1.0),
        (0.5, 0.0, 2.0, math.exp(-1)),
        (-0.5, 0.0, 2.0, math.exp(-1)),
        (0.3, 2.5, 1.7, math.cos(0.75) * math.exp(-((1.7 * 0.3) ** 2))),
    ],
)
def test_hand_values(u, frequency, decay, expected):
    assert gabor(torch.tensor(u, dtype=F64), frequency, decay).item() == pytest.approx(expected, abs=1e-15)


def test_derivative_against_finite_differences():
    u = torch.linspace(-2, 2, 21, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: gabor(v, 3.1, 0.8), u)


def test_input_is_left_as_it_was():
    u = torch.linspace(-1, 1, 5)
    before = u.clone()
    gabor(u, 3.0, 1.0)
    assert torch.equal(u, before)


def test_gradients_reach_weight_bias_and_input():
    layer = GaborLayer(3, 4, 3.0, 1.0, torch.Generator().manual_seed(0)).double()
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda v, w, b: torch.func.functional_call(layer, {"weight": w, "bias": b}, (v,)),
        (x, layer.weight.detach().clone().requires_grad_(), layer.bias.detach().clone().requires_grad_()),
    )


def test_layer_is_the_wavelet_of_an_affine_map():
    layer = GaborLayer(2, 3, 2.0, 0.5, torch.Generator().manual_seed(0))
    x = torch.randn(2, 7, generator=torch.Generator().manual_seed(1))
    u = layer.weight.detach() @ x + layer.bias.detach()
    expected = torch.cos(2.0 * u) * torch.exp(-((0.5 * u) ** 2))
    assert torch.allclose(layer(x), expected, atol=1e-6)


@pytest.mark.parametrize(("n_in", "frequency"), [(6, 3.0), (24, 3.0), (6, 30.0)])
def test_first_state_fills_its_bounds(n_in, frequency):
    layer = GaborLayer(n_in, 400, frequency, 1.0, torch.Generator().manual_seed(0))
    weight, bias = math.sqrt(6 / n_in) / frequency, math.pi / frequency
    for values, bound in ((layer.weight, weight), (layer.bias, bias)):
        assert 0.97 * bound < values.max().item() <= bound
        assert -bound <= values.min().item() < -0.97 * bound
        assert values.mean().item() == pytest.approx(0, abs=0.1 * bound)


def test_variance_of_the_phase_is_kept_for_unit_inputs():
    """Uniform weights within sqrt(6 / n) / w have variance 2 / (n w^2): the phase w W x has variance 2 mean(x^2)."""
    layer = GaborLayer(64, 4000, 7.0, 1.0, torch.Generator().manual_seed(0))
    x = torch.randn(64, 1, generator=torch.Generator().manual_seed(1))
    phase = 7.0 * (layer.weight.detach() @ x)
    assert phase.var().item() == pytest.approx(2 * x.square().mean().item(), rel=0.08)


def test_first_state_follows_the_generator():
    one, same, other = (GaborLayer(3, 4, 3.0, 1.0, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(one.weight, same.weight)
    assert torch.equal(one.bias, same.bias)
    assert not torch.equal(one.weight, other.weight)


def test_linear_layer_starts_at_zero_and_is_affine():
    layer = LinearLayer(3, 2)
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer(x), torch.zeros(2, 5))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2, 3], [0, 0, 1]]))
        layer.bias.copy_(torch.tensor([[10.0], [20.0]]))
    expected = torch.stack([x[0] + 2 * x[1] + 3 * x[2] + 10, x[2] + 20])
    assert torch.allclose(layer(x), expected, atol=1e-6)
