import dataclasses

import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid
from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.noise_estimate import background_noise
from mrcore.phantom import digital_head, head_grid
from ulfsim.measurement.contrast import tissue_cores
from ulfsim.source.source import Source, source_of, truth_of
from ulfsim.source.window import bounding_box, inner_tissues, touches_edge

ONES = dict.fromkeys(TISSUES, 1.0)


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(48, 220.0), seed=4, skull=True)


@pytest.fixture(scope="module")
def source(head):
    return source_of(head.image, head.tissues)


def test_parts_add_up_to_the_image(head, source):
    assert torch.allclose(truth_of(source, ONES, 1.0).data, head.image.data, atol=1e-6)
    assert float(source.basis.min()) >= 0
    assert float(source.rest.min()) >= 0
    # Scalp is rest, the inside of the brain is not.
    outside = head.tissues.prob.sum(0) == 0
    assert torch.equal(source.rest[outside], head.image.data[outside])
    assert float(source.rest[outside].max()) > 0.1
    assert float(source.rest[head.tissues.prob.sum(0) > 0.9999].max()) < 1e-4


def test_the_truth_is_linear_in_the_gains(source):
    a, b = {"CSF": 0.2, "GM": 0.5, "WM": 0.9}, {"CSF": 0.4, "GM": 0.1, "WM": 0.3}
    both = {name: 2 * a[name] + 3 * b[name] for name in TISSUES}
    expected = 2 * truth_of(source, a, 0.7).data + 3 * truth_of(source, b, 0.1).data
    assert torch.allclose(truth_of(source, both, 1.7).data, expected, atol=1e-5)


def test_one_gain_moves_one_part(source):
    before, after = truth_of(source, ONES, 1.0).data, truth_of(source, {**ONES, "GM": 3.0}, 1.0).data
    assert torch.allclose((after - before)[source.window], 2 * source.basis[1], atol=1e-5)
    outside = (after - before).clone()
    outside[source.window] = 0
    assert float(outside.abs().max()) == 0


def test_the_window_is_the_tissues_bounding_box(head, source):
    at = torch.nonzero(head.tissues.prob.sum(0) > 0)
    assert [w.start for w in source.window] == at.amin(0).tolist()
    assert [w.stop for w in source.window] == (at.amax(0) + 1).tolist()
    assert bounding_box(torch.zeros((2, 3, 4, 5))) == (slice(0, 3), slice(0, 4), slice(0, 5))
    one = torch.zeros((2, 6, 7, 8))
    one[1, 2, 6, 0] = 1e-3
    assert bounding_box(one) == (slice(2, 3), slice(6, 7), slice(0, 1))
    cut = inner_tissues(head.tissues, source.window)
    corner = np.array([w.start for w in source.window])
    assert cut.grid.affine[:3, 3] == pytest.approx((head.grid.affine @ np.r_[corner, 1])[:3])


def test_cores_and_levels_are_those_of_the_whole_image(head, source):
    cores, _ = tissue_cores(head.tissues)
    for core, found, level in zip(cores, source.cores, source.levels, strict=True):
        assert torch.equal(core[source.window], found)
        assert level == pytest.approx(float(head.image.data[core].double().mean()))
    assert source.core_means(2 * head.image.data) == pytest.approx([2 * level for level in source.levels])


def test_negative_values_become_zero(head):
    ringing = head.image.data.clone()
    ringing[0, 0, :5] = -0.2
    source = source_of(Volume(ringing, head.grid), head.tissues)
    assert float(truth_of(source, ONES, 1.0).data.min()) == 0


def test_other_parts_than_shares_of_the_image_will_do(head, source):
    """A synthetic contrast: tissue maps times numbers."""
    synthetic = source.with_basis(source.inner_tissues.prob.clone())
    assert synthetic.cores is source.cores
    truth = truth_of(synthetic, {"CSF": 5.0, "GM": 3.0, "WM": 2.0}, 0.0).data
    assert float(truth[head.tissues.of("CSF") > 0.9999].median()) == pytest.approx(5.0, rel=1e-3)
    built = Source(head.image, head.tissues, synthetic.basis, source.rest, source.window)
    assert torch.equal(truth_of(built, ONES, 0.0).data, truth_of(synthetic, ONES, 0.0).data)
    assert built.levels == pytest.approx(source.levels)


def test_noise_of_the_air_from_a_part_of_the_voxels(head, monkeypatch):
    generator = torch.Generator().manual_seed(3)
    real, imag = 0.01 * torch.randn((2, *head.grid.shape), generator=generator)
    source = source_of(Volume(torch.hypot(head.image.data + real, imag), head.grid), head.tissues)
    assert source.air_noise.sd == background_noise(source.volume.data, head.tissues.mask).sd
    monkeypatch.setattr("ulfsim.source.source._N_FOR_NOISE", source.volume.data.numel() / 8)
    thinned = dataclasses.replace(source).air_noise
    assert thinned.n_voxels < source.air_noise.n_voxels / 4
    assert thinned.sd == pytest.approx(0.01, rel=0.03)


@pytest.mark.parametrize("width_mm", [20.0, (20.0, 6.0, 6.0)])
def test_an_object_near_a_face_touches_the_edge(width_mm):
    data = torch.zeros((20, 20, 20))
    data[8:12, 4:16, 4:16] = 1.0
    grid = Grid((20, 20, 20), np.diag([2.0, 2.0, 2.0, 1.0]))
    assert touches_edge(Volume(data, grid), width_mm)
    assert not touches_edge(Volume(data, grid), 6.0)
    assert not touches_edge(Volume(data, grid), (14.0, 6.0, 6.0))


def test_bad_sources_are_refused(head, source):
    coarse = Grid((4, 4, 4), np.diag([8.0, 8.0, 8.0, 1.0]))
    with pytest.raises(GridMismatchError, match="same grid"):
        source_of(head.image, TissueMap(torch.zeros((3, 4, 4, 4)), TISSUES, coarse))
    with pytest.raises(BadInputError, match="magnitude"):
        source_of(Volume(head.image.data.to(torch.complex64), head.grid), head.tissues)
    with pytest.raises(BadInputError, match="no CSF"):
        source_of(head.image, TissueMap(torch.zeros_like(head.tissues.prob), TISSUES, head.grid))
    with pytest.raises(BadInputError, match="shapes"):
        Source(head.image, head.tissues, source.basis[:2], source.rest, source.window)
    with pytest.raises(BadInputError, match="gains must name"):
        truth_of(source, {"WM": 1.0}, 1.0)
    with pytest.raises(BadInputError, match="negative"):
        truth_of(source, {**ONES, "GM": -0.1}, 1.0)
    with pytest.raises(BadInputError, match="negative"):
        truth_of(source, ONES, -1.0)
