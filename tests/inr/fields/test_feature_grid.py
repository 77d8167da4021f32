"""Feature grids: interpolation on a lattice and at scattered positions, adjoint, coverage."""

import numpy as np
import pytest
import torch
from operators import grid

from inr.fields.feature_grid import FeatureGrid, MultiLevelGrid

LATTICE = grid((9, 7, 12), (1.0, 1.5, 0.8), (3, -2, 5), (10, 20, -30))
ALL = slice(0, 9)
EVERYWHERE = (slice(None), slice(None))


def level(spacing_mm=2.3, n_features=3, lattice=LATTICE, seed=0) -> FeatureGrid:
    out = FeatureGrid(lattice, spacing_mm, n_features, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        out.features.mul_(1e3)
    return out


def offsets_of(lattice) -> torch.Tensor:
    """Positions (n, 3) in mm of all voxels from the first one, along the lattice axes."""
    voxels = np.stack(np.meshgrid(*map(np.arange, lattice.shape), indexing="ij"), -1).reshape(-1, 3)
    return torch.from_numpy(voxels * np.array(lattice.spacing_mm))


def nodes_mm(feature_grid) -> list[torch.Tensor]:
    """Where the nodes of each axis lie, in mm from the first lattice voxel."""
    counts = feature_grid.features.shape[1:]
    return [
        torch.arange(n) * feature_grid.spacing_mm - offset
        for n, offset in zip(counts, feature_grid.offset_mm, strict=True)
    ]


@pytest.mark.parametrize("spacing_mm", [0.5, 0.8, 2.3, 7.7, 30.0])
def test_lattice_and_scattered_evaluation_agree(spacing_mm):
    one = level(spacing_mm)
    on_lattice = one.slab(one.planes(EVERYWHERE), ALL)
    scattered = one.at(offsets_of(LATTICE))
    assert on_lattice.shape == scattered.shape == (3, 9 * 7 * 12)
    assert torch.allclose(on_lattice, scattered, atol=2e-5 * one.features.abs().max().item())


@pytest.mark.parametrize("spacing_mm", [0.9, 2.3, 5.0])
def test_linear_functions_are_reproduced_exactly(spacing_mm):
    one = level(spacing_mm, n_features=1)
    x, y, z = nodes_mm(one)
    with torch.no_grad():
        one.features.copy_((0.7 * x[:, None, None] - 1.1 * y[:, None] + 0.3 * z + 2)[None])
    where = offsets_of(LATTICE).float()
    expected = where @ torch.tensor([0.7, -1.1, 0.3]) + 2
    assert torch.allclose(one.slab(one.planes(EVERYWHERE), ALL)[0], expected, atol=1e-5)
    inside = torch.rand(50, 3, generator=torch.Generator().manual_seed(1)) * where.max(0).values
    assert torch.allclose(one.at(inside)[0], inside @ torch.tensor([0.7, -1.1, 0.3]) + 2, atol=1e-5)


@pytest.mark.parametrize("shape", [(9, 7, 12), (10, 8, 5), (1, 6, 4)])
@pytest.mark.parametrize("spacing_mm", [0.5, 1.0, 1.7, 3.0, 4.0, 50.0])
def test_nodes_cover_the_lattice_and_are_centred_on_it(shape, spacing_mm):
    lattice = grid(shape, (1.0, 1.5, 0.8))
    one = level(spacing_mm, lattice=lattice)
    for where, n, step in zip(nodes_mm(one), lattice.shape, lattice.spacing_mm, strict=True):
        last = (n - 1) * step
        assert where[0] <= 1e-5
        assert where[-1] >= last - 1e-5
        assert (where[0] + where[-1]).item() == pytest.approx(last, abs=1e-4)
        # Not a node more than needed.
        assert where[-1] - where[0] < last + spacing_mm
    with torch.no_grad():
        one.features.fill_(2.5)
    flat = one.slab(one.planes(EVERYWHERE), slice(0, shape[0]))
    assert torch.allclose(flat, torch.full_like(flat, 2.5), atol=1e-5)


def test_slabs_together_are_the_whole():
    one = level()
    planes = one.planes(EVERYWHERE)
    whole = one.slab(planes, ALL).reshape(3, 9, -1)
    for rows in (slice(0, 4), slice(4, 8), slice(8, 9)):
        assert torch.allclose(one.slab(planes, rows).reshape(3, rows.stop - rows.start, -1), whole[:, rows], atol=1e-6)


@pytest.mark.parametrize("rows", [slice(0, 4), slice(3, 6), slice(8, 9), ALL])
@pytest.mark.parametrize("spacing_mm", [0.9, 2.3, 20.0])
def test_slab_adjoint_passes_the_dot_test(rows, spacing_mm):
    one = level(spacing_mm).double()
    generator = torch.Generator().manual_seed(3)
    planes = torch.randn(one.planes(EVERYWHERE).shape, generator=generator, dtype=torch.float64)
    out = one.slab(planes, rows)
    y = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    back = torch.zeros_like(planes)
    one.add_slab_adjoint(y, rows, back)
    left, right = (out * y).sum().item(), (planes * back).sum().item()
    assert abs(left - right) < 1e-12 * (out.norm() * y.norm()).item()
    one.add_slab_adjoint(y, rows, back)
    assert (planes * back).sum().item() == pytest.approx(2 * left, rel=1e-10), "it adds"


@pytest.mark.parametrize("box", [EVERYWHERE, (slice(2, 6), slice(5, 11))])
def test_plane_adjoint_passes_the_dot_test(box):
    one = level(1.3).double()
    planes = one.planes(box).detach()
    assert torch.allclose(planes, one.planes(EVERYWHERE)[:, :, box[0], box[1]])
    y = torch.randn(planes.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for times in (1, 2):  # it adds
        one.add_planes_adjoint(y, box)
        assert (one.features * one.features.grad).sum().item() == pytest.approx(times * (planes * y).sum().item())


def test_outside_the_nodes_the_nearest_value_is_used():
    one = level()
    x, y, z = (where[-1].item() for where in nodes_mm(one))
    far = one.at(torch.tensor([[x + 40, y + 40, z + 40]]))
    assert torch.allclose(far[:, 0], one.features[:, -1, -1, -1], atol=1e-5)


def test_levels_are_concatenated_in_order():
    generator = torch.Generator().manual_seed(0)
    both = MultiLevelGrid(LATTICE, (4.0, 2.0), 3, generator)
    assert [one.spacing_mm for one in both.grids()] == [4.0, 2.0]
    where = offsets_of(LATTICE)[:5]
    assert torch.equal(both.at(where), torch.cat([one.at(where) for one in both.grids()]))
    assert both.widths == [3, 3]
    assert not torch.equal(*(one.features.reshape(-1)[:6] for one in both.grids()))


def test_features_start_small_and_follow_the_generator():
    raw = [FeatureGrid(LATTICE, 1.0, 4, torch.Generator().manual_seed(s)).features for s in (0, 0, 1)]
    assert raw[0].std().item() == pytest.approx(1e-3, rel=0.1)
    assert torch.equal(raw[0], raw[1])
    assert not torch.equal(raw[0], raw[2])
