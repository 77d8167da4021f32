"""The field: evaluation on the foreground of a lattice, the two-pass gradient, rendering anywhere."""

import copy
import dataclasses

import pytest
import torch
from operators import grid, positions_mm

from inr.fields.base import CHUNK_POINTS, slabs_of
from inr.fields.multilevel import FieldSettings, GaborField
from mrcore.errors import BadInputError

LATTICE = grid((11, 9, 8), (1.0, 1.2, 1.5), (4, -3, 7), (15, -10, 25))
EVERYWHERE = (slice(None), slice(None))
SETTINGS = FieldSettings(
    spacings_mm=(6.0,), finest_voxels=2.5, n_features=3, n_hidden=5, n_layers=2, frequency=3.0, decay=1.0
)


def lively(settings=SETTINGS, lattice=LATTICE, n_outputs=4, seed=0) -> GaborField:
    """A field in which every parameter matters: features of order one, a head that is not zero."""
    generator = torch.Generator().manual_seed(seed)
    out = GaborField(lattice, settings, n_outputs, generator)
    with torch.no_grad():
        for level in out.encoding.grids():
            level.features.mul_(500)
        out.decoder.head.weight.copy_(torch.randn(out.decoder.head.weight.shape, generator=generator))
        out.decoder.head.bias.copy_(torch.randn(out.decoder.head.bias.shape, generator=generator))
    return out


def some_foreground(lattice=LATTICE, seed=5) -> torch.Tensor:
    return torch.rand(lattice.shape, generator=torch.Generator().manual_seed(seed)) < 0.6


def whole_lattice(field) -> torch.Tensor:
    """Plain evaluation (n_outputs, all voxels) with a graph."""
    n_rows = field.grid.shape[0]
    features = torch.cat([level.slab(level.planes(EVERYWHERE), slice(0, n_rows)) for level in field.encoding.grids()])
    return field.decoder(features)


def test_evaluation_is_the_field_at_the_voxels_in_the_world():
    field, foreground = lively(), some_foreground()
    outputs = field.evaluate(slabs_of(foreground))
    expected = field(positions_mm(LATTICE)[foreground])
    assert outputs.shape == (4, int(foreground.sum()))
    assert not outputs.requires_grad
    assert torch.allclose(outputs, expected, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("n_rows", [1, 3, 4, 50])
def test_cutting_into_slabs_changes_nothing(n_rows):
    field, foreground = lively(), some_foreground()
    whole = whole_lattice(field)[:, foreground.reshape(-1)]
    assert torch.allclose(field.evaluate(slabs_of(foreground, n_rows)), whole, atol=1e-5)


def test_empty_rows_are_skipped_and_order_is_kept():
    field, foreground = lively(), some_foreground()
    foreground[2:7] = False
    slabs = slabs_of(foreground, 2)
    assert [(rows.start, rows.stop) for rows in slabs.rows] == [(0, 2), (6, 8), (8, 10), (10, 11)]
    assert slabs.n_points == int(foreground.sum()) == sum(len(c) for chunks in slabs.inside for c in chunks)
    assert torch.allclose(field.evaluate(slabs), whole_lattice(field)[:, foreground.reshape(-1)], atol=1e-5)


def test_the_background_around_the_object_is_left_out():
    field, foreground = lively(), some_foreground()
    foreground[:, :2], foreground[:, 7:], foreground[:, :, :3], foreground[:, :, 7:] = False, False, False, False
    slabs = slabs_of(foreground)
    assert slabs.box == (slice(2, 7), slice(3, 7))
    assert field.encoding.grids()[0].planes(slabs.box).shape[2:] == (5, 4)
    assert torch.allclose(field.evaluate(slabs), whole_lattice(field)[:, foreground.reshape(-1)], atol=1e-5)
    plain = copy.deepcopy(field)
    gradient = torch.randn(4, slabs.n_points, generator=torch.Generator().manual_seed(9))
    field.backpropagate(slabs, gradient)
    whole_lattice(plain)[:, foreground.reshape(-1)].backward(gradient)
    for ours, expected in zip(field.parameters(), plain.parameters(), strict=True):
        assert (ours.grad - expected.grad).norm() < 1e-5 * expected.grad.norm()


def test_what_is_kept_for_the_way_back_follows_the_features():
    field, slabs = lively(), slabs_of(some_foreground())
    before = field.evaluate(slabs)
    with torch.no_grad():
        field.encoding.grids()[0].features.mul_(0.5)
    after = field.evaluate(slabs)
    assert not torch.allclose(after, before, atol=1e-3)
    assert torch.allclose(after, copy.deepcopy(field).evaluate(slabs))


def test_large_slabs_are_decoded_in_chunks():
    foreground = torch.ones(4, 80, 120, dtype=torch.bool)
    sizes = [len(chunk) for chunk in slabs_of(foreground).inside[0]]
    assert sizes == [CHUNK_POINTS, CHUNK_POINTS, 4 * 80 * 120 - 2 * CHUNK_POINTS]


@pytest.mark.parametrize("n_rows", [1, 4, 50])
def test_two_pass_gradient_is_that_of_plain_autograd(n_rows):
    field, foreground = lively(), some_foreground()
    plain = copy.deepcopy(field)
    gradient = torch.randn(4, int(foreground.sum()), generator=torch.Generator().manual_seed(9))
    field.backpropagate(slabs_of(foreground, n_rows), gradient)
    whole_lattice(plain)[:, foreground.reshape(-1)].backward(gradient)
    names = dict(plain.named_parameters())
    assert len(names) == 2 + 2 * 2 + 2 + 1, "features, Gabor layers, head, direct path"
    for name, ours in field.named_parameters():
        expected = names[name].grad
        assert expected.norm() > 0, name
        assert (ours.grad - expected).norm() < 1e-5 * expected.norm(), name


def test_chunks_in_one_slab_add_up(monkeypatch):
    monkeypatch.setattr("inr.fields.base.CHUNK_POINTS", 37)
    test_two_pass_gradient_is_that_of_plain_autograd(4)
    test_cutting_into_slabs_changes_nothing(4)


def test_gradients_add_to_what_is_there():
    field, slabs = lively(), slabs_of(some_foreground())
    gradient = torch.ones(4, slabs.n_points)
    field.backpropagate(slabs, gradient)
    once = [p.grad.clone() for p in field.parameters()]
    field.backpropagate(slabs, gradient)
    for first, parameter in zip(once, field.parameters(), strict=True):
        assert torch.allclose(parameter.grad, 2 * first, rtol=1e-4, atol=1e-6)


def test_empty_foreground_is_an_error():
    with pytest.raises(BadInputError, match="foreground is empty"):
        slabs_of(torch.zeros(LATTICE.shape, dtype=torch.bool))


def test_field_renders_on_any_other_grid():
    """Where the features are linear in space, so is a decoder without hidden part: its value is known anywhere."""
    field = lively(n_outputs=1)
    axis_mm = torch.from_numpy(LATTICE.affine[:3, 0] / LATTICE.spacing_mm[0])
    with torch.no_grad():
        field.decoder.head.weight.zero_()
        field.decoder.head.bias.zero_()
        field.decoder.direct.zero_()
        field.decoder.direct[0, 0] = 1.0
        level = field.encoding.grids()[0]
        along = torch.arange(level.features.shape[1]) * level.spacing_mm - level.offset_mm[0]
        level.features[0] = along[:, None, None]
    finer = grid((6, 7, 5), (0.7, 0.9, 0.6), (4, -3, 7), (-5, 10, 40))
    positions = positions_mm(finer).reshape(-1, 3)
    expected = (positions - torch.from_numpy(LATTICE.affine[:3, 3].copy())) @ axis_mm
    assert torch.allclose(field(positions)[0], expected.float(), atol=1e-4)


def test_finest_level_follows_the_voxels_and_finer_ones_are_left_out():
    def kept(spacings, voxel_mm, finest=1.3):
        lattice = grid((20, 20, 20), (voxel_mm,) * 3)
        settings = dataclasses.replace(SETTINGS, spacings_mm=spacings, finest_voxels=finest)
        field = GaborField(lattice, settings, 1, torch.Generator().manual_seed(0))
        return [level.spacing_mm for level in field.encoding.grids()]

    assert kept((8.0, 4.0, 2.0), 1.0) == [8.0, 4.0, 2.0, 1.3]
    assert kept((8.0, 4.0, 2.0), 2.0) == [8.0, 4.0, 2.6]
    assert kept((8.0, 4.0, 1.8), 1.0) == [8.0, 4.0, 1.3], "1.8 mm is not 1.4 times 1.3 mm"
    assert kept((), 1.0, 2.0) == [2.0], "one level stays"


def test_first_state_follows_the_generator_and_is_near_zero():
    def fresh(seed):
        return GaborField(LATTICE, SETTINGS, 4, torch.Generator().manual_seed(seed))

    slabs = slabs_of(torch.ones(LATTICE.shape, dtype=torch.bool))
    one, same, other = (fresh(s).evaluate(slabs) for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert 0 < one.abs().max().item() < 0.03


def test_every_setting_changes_the_field():
    slabs = slabs_of(torch.ones(LATTICE.shape, dtype=torch.bool))
    changes = {
        "spacings_mm": (7.0,),
        "finest_voxels": 2.0,
        "n_features": 2,
        "n_hidden": 6,
        "n_layers": 1,
        "frequency": 2.0,
        "decay": 0.7,
    }
    assert changes.keys() == {f.name for f in dataclasses.fields(FieldSettings)}
    base = lively().evaluate(slabs)
    for name, value in changes.items():
        other = lively(dataclasses.replace(SETTINGS, **{name: value})).evaluate(slabs)
        assert not torch.allclose(base, other, atol=1e-4), name


@pytest.mark.parametrize(
    "bad",
    [
        {"finest_voxels": 0.0},
        {"spacings_mm": (2.0, 0.0)},
        {"n_features": 0},
        {"n_hidden": 0},
        {"n_layers": 0},
        {"frequency": 0.0},
        {"decay": -1.0},
    ],
    ids=str,
)
def test_settings_that_make_no_field(bad):
    with pytest.raises(BadInputError, match="a field needs"):
        FieldSettings(**bad)


def test_number_of_threads_changes_no_bit():
    field, foreground = lively(), some_foreground()
    gradient = torch.randn(4, int(foreground.sum()), generator=torch.Generator().manual_seed(9))
    before = torch.get_num_threads()
    found = []
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            again, slabs = copy.deepcopy(field), slabs_of(foreground, 1)
            outputs = again.evaluate(slabs)
            again.backpropagate(slabs, gradient)
            found.append([outputs, *(p.grad for p in again.parameters())])
            assert torch.get_num_threads() == n_threads, "the caller keeps its threads"
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
