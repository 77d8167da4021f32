"""Resampling: exact identity, scipy as oracle, motion in the stated direction."""

import numpy as np
import pytest
import torch
from operators import blob, centroid_mm, grid, numbers, rotation
from scipy import ndimage

from mrcore.data.grid import Grid, to_voxel, to_world
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.spatial.resampling import ResampleOp, resample, resample_within

F64 = torch.float64
SOURCE = grid((21, 24, 26), (1.0, 1.2, 0.9), (2, -3, 4), flips=(0,))
TARGET = grid((17, 15, 12), (1.3, 1.5, 1.7), (2.2, -3.4, 4.1), degrees=(10, -25, 30))
CENTRE = (2.4, -2.6, 4.7)


def shifted(x_mm: float, y_mm: float, z_mm: float) -> np.ndarray:
    out = np.eye(4)
    out[:3, 3] = x_mm, y_mm, z_mm
    return out


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_identity_is_exact(dtype):
    x = numbers(*SOURCE.shape).to(dtype)
    same = Grid(SOURCE.shape, SOURCE.affine)
    assert torch.equal(ResampleOp(SOURCE, same, dtype=dtype)(x), x)
    assert torch.equal(ResampleOp(SOURCE, same, np.eye(4), dtype=dtype).H(x), x)
    for order in (0, 1, 3):
        assert torch.equal(resample(Volume(x, SOURCE), same, order).data, x)


def test_identity_is_exact_where_the_affine_is_not_a_round_number():
    for source in (TARGET, Grid(SOURCE.shape, rotation((33, 11, -7)) @ SOURCE.affine)):
        x = numbers(*source.shape)
        assert torch.equal(ResampleOp(source, source, dtype=F64)(x), x)


def test_whole_voxel_shifts_are_exact():
    x = numbers(*SOURCE.shape)
    moved = ResampleOp(SOURCE, SOURCE, shifted(-2.0, 0, 0), dtype=F64)(x)  # axis 0 is flipped: two voxels up
    assert torch.equal(moved[2:], x[:-2])
    assert not moved[:2].any()


@pytest.mark.parametrize("motion", [None, rotation((4, 3, -12)) @ shifted(1.5, -2, 0.7)])
def test_agrees_with_scipy(motion):
    x = numbers(*SOURCE.shape)
    world = to_world(TARGET, np.stack(np.meshgrid(*map(np.arange, TARGET.shape), indexing="ij"), -1))
    if motion is not None:
        inverse = np.linalg.inv(motion)
        world = world @ inverse[:3, :3].T + inverse[:3, 3]
    at = np.moveaxis(to_voxel(SOURCE, world), -1, 0)
    expected = ndimage.map_coordinates(x.numpy(), at, order=1, mode="grid-constant")
    torch.testing.assert_close(ResampleOp(SOURCE, TARGET, motion, dtype=F64)(x), torch.from_numpy(expected))


def test_adjoint_agrees_with_the_dense_transpose():
    small, other = grid((3, 2, 4), (1, 1, 1)), grid((2, 3, 3), (1.3, 0.8, 1.1), (0.2, 0.1, 0.3), (10, 20, 30))
    op = ResampleOp(small, other, dtype=F64)
    forward = op(torch.eye(24, dtype=F64).reshape(24, *small.shape)).reshape(24, -1)
    adjoint = op.H(torch.eye(18, dtype=F64).reshape(18, *other.shape)).reshape(18, -1)
    assert float(forward.abs().sum()) > 5
    torch.testing.assert_close(forward.T, adjoint)


@pytest.mark.parametrize("degrees", [(0, 0, 0), (0, 0, 30), (90, 0, 0), (35, -25, 60)])
@pytest.mark.parametrize("centre_mm", [(2, -3, 4), (9.3, 4.1, -7.7)])
def test_a_target_far_larger_than_its_source_misses_none_of_it(degrees, centre_mm):
    x = numbers(*SOURCE.shape)
    wide = grid((45, 41, 47), (1.0, 1.1, 0.9), centre_mm, degrees)
    world = to_world(wide, np.stack(np.meshgrid(*map(np.arange, wide.shape), indexing="ij"), -1))
    at = np.moveaxis(to_voxel(SOURCE, world), -1, 0)
    expected = ndimage.map_coordinates(x.numpy(), at, order=1, mode="grid-constant")
    assert np.abs(expected).sum() > 1000
    torch.testing.assert_close(ResampleOp(SOURCE, wide, dtype=F64)(x), torch.from_numpy(expected), rtol=0, atol=1e-8)


@pytest.mark.parametrize("shift_mm", [(3.0, 0, 0), (0, -2.5, 0), (0, 0, 1.7)])
@pytest.mark.parametrize("target", [SOURCE, TARGET], ids=["same grid", "oblique grid"])
def test_motion_moves_the_object_in_the_stated_direction(shift_mm, target):
    x = blob(SOURCE, CENTRE, 1.7)
    moved = ResampleOp(SOURCE, target, shifted(*shift_mm), dtype=F64)(x)
    np.testing.assert_allclose(centroid_mm(moved, target), np.add(CENTRE, shift_mm), atol=0.03)


def test_rotation_turns_counter_clockwise_about_the_world_origin():
    wide = grid((31, 33, 15), (1, 1, 1))
    turned = ResampleOp(wide, wide, rotation((0, 0, 90)), dtype=F64)(blob(wide, (7.0, 0, 0), 1.5))
    np.testing.assert_allclose(centroid_mm(turned, wide), (0, 7, 0), atol=0.02)


@pytest.mark.parametrize("order", [1, 3])
def test_splines_keep_the_centroid(order):
    volume = Volume(blob(SOURCE, CENTRE, 2.0), SOURCE, {"EchoTime": 0.1})
    out = resample(volume, TARGET, order)
    assert out.grid is TARGET
    assert out.meta == volume.meta
    assert out.data.dtype == F64
    np.testing.assert_allclose(centroid_mm(out.data, TARGET), CENTRE, atol=0.02)
    error = float((out.data - blob(TARGET, CENTRE, 2.0)).abs().max())
    assert error < (0.1 if order == 1 else 0.01)


def test_cubic_is_sharper_than_linear_and_nearest_keeps_labels():
    volume = Volume(blob(SOURCE, CENTRE, 1.2), SOURCE)
    truth = blob(TARGET, CENTRE, 1.2)
    errors = [float((resample(volume, TARGET, order).data - truth).square().mean()) for order in (0, 1, 3)]
    assert errors[0] > errors[1] > errors[2]
    labels = Volume(torch.randint(0, 4, SOURCE.shape, generator=torch.Generator().manual_seed(0)).float(), SOURCE)
    assert set(resample(labels, TARGET, 0).data.unique().tolist()) <= {0, 1, 2, 3}


def test_outside_reads_zero():
    far = Grid(TARGET.shape, shifted(200, 0, 0) @ TARGET.affine)
    assert not ResampleOp(SOURCE, far)(torch.ones(SOURCE.shape)).any()
    assert not resample(Volume(torch.ones(SOURCE.shape), SOURCE), far).data.any()


@pytest.mark.parametrize("motion", [np.eye(3), np.zeros((4, 4)), np.full((4, 4), np.nan)])
def test_refuses_a_motion_that_is_none(motion):
    with pytest.raises(BadInputError, match="finite, invertible 4 x 4"):
        ResampleOp(SOURCE, TARGET, motion)


def test_refuses_an_impossible_order():
    with pytest.raises(BadInputError, match="order of a spline is 0 to 5, got 7"):
        resample(Volume(torch.ones(SOURCE.shape), SOURCE), TARGET, 7)


def test_sparse_resampling_is_the_same_inside_its_support():
    support = blob(SOURCE, CENTRE, 5.0) > 0.3
    for operator in (
        ResampleOp(SOURCE, TARGET, dtype=F64),
        ResampleOp(SOURCE, SOURCE, rotation((4, 3, -5)), dtype=F64),
    ):
        sparse = resample_within(operator, support)
        x, y = numbers(*SOURCE.shape), numbers(*operator.shape_out)
        torch.testing.assert_close(sparse(x), operator(x * support))
        torch.testing.assert_close(sparse.H(y), operator.H(y) * support)
    beside = resample_within(ResampleOp(SOURCE, Grid((4, 4, 4), shifted(300, 0, 0)), dtype=F64), support)
    assert torch.equal(beside(x), torch.zeros(4, 4, 4, dtype=F64))


def test_a_support_on_another_grid_is_refused():
    with pytest.raises(BadInputError, match=r"boolean of shape \(21, 24, 26\)"):
        resample_within(ResampleOp(SOURCE, TARGET), torch.ones(TARGET.shape, dtype=torch.bool))
    with pytest.raises(BadInputError, match="works on the CPU"):
        resample_within(ResampleOp(SOURCE, TARGET), torch.ones(SOURCE.shape, dtype=torch.bool)).to("cuda")
