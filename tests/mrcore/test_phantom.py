import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid, to_world
from mrcore.data.volume import TISSUES
from mrcore.errors import BadInputError
from mrcore.phantom import digital_head, head_grid
from mrcore.signals.tissue import relaxation


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(48), seed=3)


def test_it_looks_like_a_brain_even_when_small(head):
    assert head.tissues.names == TISSUES
    share = head.tissues.prob.sum((1, 2, 3)) / head.mask.sum()
    assert 0.1 < share[0] < 0.3
    assert 0.3 < share[1] < 0.6
    assert 0.2 < share[2] < 0.5
    assert (head.tissues.prob > 0.9).sum((1, 2, 3)).min() > 200
    # Folds: a good part of the voxels holds more than one tissue.
    mixed = head.tissues.prob.amax(0)[head.mask] < 0.9
    assert 0.15 < float(mixed.float().mean()) < 0.8
    volume_ml = float(head.mask.sum()) * np.prod(head.grid.spacing_mm) / 1000
    assert 1200 < volume_ml < 1800


def test_probabilities_sum_to_one_in_the_mask_and_vanish_outside(head):
    total = head.tissues.prob.sum(0)
    assert torch.allclose(total[head.mask], torch.ones(()), atol=1e-5)
    assert float(total[~head.mask].abs().max()) == 0
    assert float(head.image.data[~head.mask].abs().max()) == 0


def test_nothing_touches_the_edge(head):
    for axis in range(3):
        assert not head.mask.select(axis, 0).any()
        assert not head.mask.select(axis, -1).any()


def test_contrast_is_that_of_a_t1w_image(head):
    fluid, grey, white = (float(head.image.data[p > 0.99].mean()) for p in head.tissues.prob)
    assert white == pytest.approx(1, abs=0.01)
    assert fluid < 0.5 * grey < grey < 0.9 * white


def test_maps_hold_the_table_in_pure_voxels_and_no_relaxation_outside(head):
    for name, prob in zip(TISSUES, head.tissues.prob, strict=True):
        known, pure = relaxation(name, 3.0), prob > 0.9999
        assert head.t1_s[pure].mean() == pytest.approx(known.t1_s, rel=1e-3)
        assert head.t2_s[pure].mean() == pytest.approx(known.t2_s, rel=1e-3)
        assert head.pd[pure].mean() == pytest.approx(known.pd, rel=1e-3)
    assert float(head.t1_s[~head.mask].abs().max()) == 0


def test_same_seed_same_head_other_seed_other_folds(head):
    again, other = digital_head(head_grid(48), seed=3), digital_head(head_grid(48), seed=4)
    assert torch.equal(head.image.data, again.image.data)
    assert float((head.tissues.prob - other.tissues.prob).abs().mean()) > 0.005


def test_the_same_head_stands_upright_on_every_grid(head):
    affine = np.array([[-4.0, 0, 0, 94], [0, 0, 4, -94], [0, -4, 0, 94], [0, 0, 0, 1]])  # LIA
    lia = digital_head(Grid((48, 48, 48), affine), seed=3)
    back = lia.image.data.flip(0).flip(1).permute(0, 2, 1)
    assert torch.allclose(back, head.image.data, atol=1e-4)


def test_volume_and_centre_do_not_depend_on_an_oblique_grid(head):
    angle = np.deg2rad(20)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = 4 * rotation
    affine[:3, 3] = -affine[:3, :3] @ np.full(3, 25.5)
    oblique = digital_head(Grid((52, 52, 52), affine), seed=3)
    for image in (head, oblique):
        where = torch.nonzero(image.mask).double().mean(0).numpy()
        assert np.abs(to_world(image.grid, where)).max() < 1
    assert int(oblique.mask.sum()) == pytest.approx(int(head.mask.sum()), rel=0.02)


def test_every_argument_changes_something(head):
    grid = head_grid(48)
    low = digital_head(grid, seed=3, field_t=0.064)
    assert float((low.t1_s - head.t1_s)[head.mask].abs().mean()) > 0.3
    assert torch.equal(low.tissues.prob, head.tissues.prob)
    thick = digital_head(grid, seed=3, cortex_mm=10.0)
    assert thick.tissues.of("GM").sum() > 1.1 * head.tissues.of("GM").sum()
    rough = digital_head(grid, seed=3, texture=0.05)
    ratio = (rough.image.data / head.image.data)[head.tissues.of("WM") > 0.9]
    assert float(ratio.std()) == pytest.approx(0.05, rel=0.3)
    skull = digital_head(head_grid(48, 220.0), seed=3, skull=True)
    assert (skull.image.data[~skull.mask] > 0.9).sum() > 1000
    assert skull.tissues.names == TISSUES


def test_a_small_field_of_view_gets_a_small_head():
    small = digital_head(Grid((40, 40, 40), np.eye(4)), seed=3)
    assert 0.1 < float(small.mask.float().mean()) < 0.5
    assert not small.mask[0].any()


def test_a_wild_texture_is_refused():
    with pytest.raises(BadInputError, match="texture"):
        digital_head(head_grid(16), texture=2.0)
