"""Fields without a grid: coordinates in mm, bandwidth in 1/mm, first states, the two-pass gradient."""

import copy
import dataclasses
import math

import pytest
import torch
from operators import grid, positions_mm

from inr.fields.base import part_of, slabs_of
from inr.fields.fourier import DenseLayer, FourierLayer, FourierMlp
from inr.fields.gabor_mlp import GaborMlp, TwoMapGaborLayer, TwoMapGaborMlp, Wire, WireLayer
from inr.fields.hashgrid import HashGrid
from inr.fields.siren import SineLayer, Siren
from mrcore.errors import BadInputError

LATTICE = grid((11, 9, 8), (1.0, 1.2, 1.5), (4, -3, 7), (15, -10, 25))
DESIGNS = {
    "GaborMlp": GaborMlp(0.1, 0.1, 12, 2),
    "TwoMapGaborMlp": TwoMapGaborMlp(0.1, 0.1, 12, 2),
    "Wire": Wire(0.1, 0.1, 12, 2),
    "Siren": Siren(0.1, 12, 2),
    "FourierMlp": FourierMlp(0.1, 6, 12, 2),
    "HashGrid": HashGrid(coarsest_mm=6.0, n_levels=3, log2_entries=8, n_hidden=8),
}
POINT_DESIGNS = {name: design for name, design in DESIGNS.items() if name != "HashGrid"}
F64 = torch.float64


def seeded(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lively(design, lattice=LATTICE, n_outputs=3, seed=0):
    """A field whose outputs are of order one."""
    field = design.build(lattice, n_outputs, seeded(seed))
    head = field.decoder.head if isinstance(design, HashGrid) else field.head
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=seeded(seed + 1)))
        if isinstance(design, HashGrid):
            field.encoding.table.mul_(1000)
    return field


def some_foreground(seed=5) -> torch.Tensor:
    return torch.rand(LATTICE.shape, generator=seeded(seed)) < 0.6


@pytest.mark.parametrize("name", DESIGNS)
def test_lattice_and_world_agree_and_gradients_are_those_of_autograd(name):
    field, foreground = lively(DESIGNS[name]), some_foreground()
    slabs = slabs_of(foreground, 3)
    positions = positions_mm(LATTICE)[foreground]
    outputs = field.evaluate(slabs)
    expected = field(positions)
    assert expected.std() > 0.1
    assert torch.allclose(outputs, expected, atol=2e-4 * expected.abs().max().item())
    plain = copy.deepcopy(field)
    gradient = torch.randn(outputs.shape, generator=seeded(9))
    field.backpropagate(slabs, gradient)
    plain(positions).backward(gradient)
    for (key, ours), theirs in zip(field.named_parameters(), plain.parameters(), strict=True):
        assert theirs.grad.norm() > 0, key
        assert (ours.grad - theirs.grad).norm() < 1e-3 * theirs.grad.norm(), key


@pytest.mark.parametrize("name", DESIGNS)
def test_first_outputs_are_near_zero_and_follow_the_generator(name):
    slabs = slabs_of(some_foreground())
    first = DESIGNS[name].build(LATTICE, 3, seeded()).evaluate(slabs)
    assert first.abs().max() < 0.05
    one, same, other = (lively(DESIGNS[name], seed=s).evaluate(slabs) for s in (0, 0, 7))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", POINT_DESIGNS)
def test_bandwidth_is_in_1_per_mm(name):
    """Half as many voxels of twice the size: the same seed makes the same function of the position."""
    coarse, fine = grid((6, 5, 7), (4.0,) * 3, (1, 2, 3)), grid((12, 10, 14), (2.0,) * 3, (1, 2, 3))
    one, other = (lively(DESIGNS[name], lattice) for lattice in (coarse, fine))
    positions = positions_mm(fine).reshape(-1, 3)
    assert torch.allclose(one(positions), other(positions), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("Siren", {"bandwidth_per_mm": 0.2}),
        ("FourierMlp", {"bandwidth_per_mm": 0.2}),
        ("GaborMlp", {"frequency_per_mm": 0.2, "decay_per_mm": 0.2}),
        ("TwoMapGaborMlp", {"frequency_per_mm": 0.2, "decay_per_mm": 0.2}),
        ("Wire", {"frequency_per_mm": 0.2, "decay_per_mm": 0.2}),
    ],
)
def test_twice_the_bandwidth_is_the_same_function_of_half_the_position(name, changes):
    small = grid((10, 10, 10), (1.0,) * 3)
    large = grid((10, 10, 10), (2.0,) * 3)
    one = lively(DESIGNS[name], large)
    other = lively(dataclasses.replace(DESIGNS[name], **changes), small)
    positions = positions_mm(small).reshape(-1, 3)
    assert torch.allclose(one(2 * positions), other(positions), atol=1e-4)
    assert not torch.allclose(one(positions), other(positions), atol=1e-2)


@pytest.mark.parametrize("name", DESIGNS)
def test_every_setting_changes_the_field(name):
    design = DESIGNS[name]
    slabs = slabs_of(torch.ones(LATTICE.shape, dtype=torch.bool))
    base = lively(design).evaluate(slabs)
    for field in dataclasses.fields(design):
        value = getattr(design, field.name)
        if field.name == "accelerated":
            continue
        changed = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else 0.7 * value
        made = lively(dataclasses.replace(design, **{field.name: changed}))
        if isinstance(design, Siren) and field.name == "frequency":
            assert made.layers[1].weight.std() > 1.3 * lively(design).layers[1].weight.std(), (
                "smaller w, larger weights"
            )
            continue
        assert not torch.allclose(base, made.evaluate(slabs), atol=1e-4), field.name


@pytest.mark.parametrize(
    "make",
    [
        lambda: Siren(bandwidth_per_mm=0.0),
        lambda: Siren(n_layers=0),
        lambda: FourierMlp(n_frequencies=0),
        lambda: GaborMlp(frequency_per_mm=-1.0),
        lambda: TwoMapGaborMlp(decay_per_mm=-0.1),
        lambda: Wire(frequency=50.0, decay=10.0),
        lambda: HashGrid(n_levels=1),
        lambda: HashGrid(log2_entries=30),
        lambda: HashGrid(coarsest_mm=1.0).build(LATTICE, 1, seeded()),
    ],
)
def test_settings_that_make_no_field(make):
    with pytest.raises(BadInputError):
        make()


def test_sine_layers_keep_the_variance():
    """Sines of a uniform phase have mean square 1/2; the phase of the next layer then has variance 1 (section 3.2)."""
    first, second = SineLayer(3, 512, 1.0, seeded()), SineLayer(512, 2048, 30.0, seeded(1))
    x = first(20 * torch.randn(3, 64, generator=seeded(2)))
    assert x.square().mean().item() == pytest.approx(0.5, rel=0.03)
    phase = 30.0 * (second.weight @ x)
    assert phase.var().item() == pytest.approx(1.0, rel=0.05)


def test_plain_initialisation_breaks_that_variance():
    """Without it the phase of w = 30 spreads over many turns: what SIREN's bounds repair."""
    settings = GaborMlp(n_hidden=256, n_layers=2)
    spread = []
    for siren_init in (True, False):
        field = dataclasses.replace(settings, siren_init=siren_init).build(LATTICE, 1, seeded())
        second = field.layers[1]
        x = torch.randn(256, 64, generator=seeded(3)) * math.sqrt(0.5)
        spread.append((second.frequency * second.weight.detach() @ x).std().item())
    assert spread[0] == pytest.approx(1.0, rel=0.1)
    assert spread[1] == pytest.approx(30 / math.sqrt(3 * 2), rel=0.1)


def test_packets_are_spread_over_the_field_of_view():
    """The envelope of each unit of the first layer peaks on a plane through the lattice."""
    design = GaborMlp(0.1, 0.5, 400, 1)
    field = design.build(LATTICE, 1, seeded())
    corners = torch.tensor(LATTICE.fov_mm)[:, None] / 2 / field.per_mm.pow(-1).float()
    reach = (field.layers[0].weight.detach().abs() @ corners)[:, 0]
    offset = field.layers[0].bias.detach()[:, 0].abs()
    assert (offset <= reach + 1e-5).all()
    assert (offset > 0.5 * reach).float().mean() > 0.05


def test_fourier_features_have_the_stated_bandwidth_and_power():
    layer = FourierLayer(4000, 0.05, seeded())
    assert layer.frequencies.std().item() == pytest.approx(0.05, rel=0.03)
    x = 40 * torch.randn(3, 50, generator=seeded(1))
    assert layer(x).square().mean().item() == pytest.approx(1.0, rel=1e-4)
    assert torch.allclose(layer(torch.zeros(3, 1))[:4000], torch.full((4000, 1), math.sqrt(2)))


@pytest.mark.parametrize("gelu", [True, False])
def test_dense_layers_keep_the_mean_square(gelu):
    layer = DenseLayer(512, 2048, gelu, seeded())
    out = layer(torch.randn(512, 100, generator=seeded(1)))
    assert out.square().mean().item() == pytest.approx(1.0, rel=0.2)
    assert (out.min() < 0) == gelu


def test_two_maps_by_hand():
    layer = TwoMapGaborLayer(1, 1, 2.0, 3.0, seeded())
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5], [0.25]]))
        layer.bias.copy_(torch.tensor([[0.1], [0.2]]))
    x = 0.4
    expected = math.cos(2 * (0.5 * x + 0.1)) * math.exp(-((3 * (0.25 * x + 0.2)) ** 2))
    assert layer(torch.tensor([[x]])).item() == pytest.approx(expected, abs=1e-6)


def test_wire_is_the_complex_wavelet():
    layer = WireLayer(4, 5, 2.0, 1.5, seeded()).double()
    x = torch.randn(8, 6, generator=seeded(1), dtype=F64)
    with torch.no_grad():
        layer.bias.copy_(torch.randn(layer.bias.shape, generator=seeded(2)))
    weight, bias = (torch.complex(*p.detach().chunk(2)) for p in (layer.weight, layer.bias))
    z = weight @ torch.complex(*x.chunk(2)) + bias
    expected = torch.exp(1j * 2.0 * z - (1.5 * z.abs()) ** 2)
    assert torch.allclose(torch.complex(*layer(x).chunk(2)), expected)


@pytest.mark.parametrize("name", DESIGNS)
def test_derivatives_against_finite_differences(name):
    field = lively(DESIGNS[name], n_outputs=2).double()
    local = 4 * torch.rand(3, 3, generator=seeded(4), dtype=F64) - 2
    names = dict(field.named_parameters())
    values = tuple(p.detach().clone().requires_grad_(True) for p in names.values())

    def run(*parameters):
        return torch.func.functional_call(_Decode(field), dict(zip(_under(names), parameters, strict=True)), (local,))

    assert torch.autograd.gradcheck(run, values, fast_mode=True)


class _Decode(torch.nn.Module):
    def __init__(self, field):
        super().__init__()
        self.field = field

    def forward(self, local):
        return self.field.decode(local)


def _under(names):
    return [f"field.{name}" for name in names]


def test_parts_of_slabs_keep_their_order():
    foreground = some_foreground()
    foreground[4:6] = False
    slabs = slabs_of(foreground, 2)
    chosen = torch.rand(slabs.n_points, generator=seeded(3)) < 0.3
    field = lively(DESIGNS["Siren"])
    part = part_of(slabs, chosen)
    assert part.n_points == int(chosen.sum())
    assert torch.allclose(field.evaluate(part), field.evaluate(slabs)[:, chosen], atol=1e-5)
