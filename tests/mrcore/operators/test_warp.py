"""The warp that keeps the sum (that its adjoint is exact is tested with all operators)."""

import pytest
import torch

from mrcore.errors import BadInputError
from mrcore.operators.warp import WarpAxisOp

F64 = torch.float64


def line(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64).reshape(1, -1, 1)


def warp(shift: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return WarpAxisOp(shift, 1)(x)


def test_whole_voxels_move_up_the_axis_and_out_of_it():
    shift = torch.full((1, 5, 1), 1.0, dtype=F64)
    assert torch.equal(warp(shift, line(1, 2, 3, 4)), line(0, 1, 2, 3))
    assert torch.equal(warp(-2 * shift, line(1, 2, 3, 4)), line(3, 4, 0, 0))


def test_no_shift_is_the_identity_bit_by_bit():
    x = torch.randn(3, 7, 2, dtype=F64)
    assert torch.equal(WarpAxisOp(torch.zeros(3, 8, 2, dtype=F64), 1)(x), x)


def test_part_of_a_voxel_is_shared_by_two():
    shift = torch.full((1, 4, 1), 0.25, dtype=F64)
    torch.testing.assert_close(warp(shift, line(0, 8, 0)), line(0, 6, 2))


def test_intensity_follows_the_jacobian():
    # Edges at 0, 1, ..., 8 go to twice their distance from 0: half the density; and back together to twice.
    edges = torch.arange(9, dtype=F64).reshape(1, -1, 1)
    torch.testing.assert_close(warp(edges, torch.ones(1, 8, 1, dtype=F64)), torch.full((1, 8, 1), 0.5, dtype=F64))
    together = warp(-edges / 2, torch.ones(1, 8, 1, dtype=F64))
    torch.testing.assert_close(together, line(2, 2, 2, 2, 0, 0, 0, 0))


def test_sum_is_kept_where_nothing_leaves_even_where_the_image_folds():
    shift = 1.5 * torch.randn((4, 21, 5), generator=torch.Generator().manual_seed(1), dtype=F64)
    x = torch.zeros(4, 20, 5, dtype=F64)
    x[:, 8:12] = torch.rand((4, 4, 5), generator=torch.Generator().manual_seed(2), dtype=F64)
    torch.testing.assert_close(warp(shift, x).sum(1), x.sum(1), rtol=1e-12, atol=1e-12)


def test_a_voxel_pressed_to_a_point_keeps_its_signal():
    shift = torch.tensor([0.3, -0.7], dtype=F64).reshape(1, 2, 1)
    assert float(warp(shift, line(5))) == 5


@pytest.mark.parametrize(
    ("shift", "axis", "message"),
    [
        (torch.zeros(3, 4, 5), 3, "axis 0, 1 or 2"),
        (torch.zeros(3, 4), 0, "one more than voxels"),
        (torch.zeros(1, 4, 4), 0, "one more than voxels"),
        (torch.full((2, 2, 2), torch.nan), 0, "finite"),
        (torch.zeros(2, 2, 2, dtype=torch.int64), 0, "real"),
    ],
)
def test_refuses_what_is_no_warp(shift, axis, message):
    with pytest.raises(BadInputError, match=message):
        WarpAxisOp(shift, axis)
