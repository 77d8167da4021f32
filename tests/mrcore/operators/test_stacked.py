import pytest
import torch
from operators import numbers

from mrcore.errors import BadInputError
from mrcore.operators.indexing import CropOp
from mrcore.operators.pointwise import DiagonalOp
from mrcore.operators.stacked import StackedOp

F64 = torch.float64


def test_each_part_is_what_its_operator_makes():
    crop, scale = CropOp((4, 5, 6), (2, 3, 4), F64), DiagonalOp(numbers(4, 5, 6))
    x = numbers(4, 5, 6, seed=2)
    made = StackedOp((crop, scale))(x)
    assert torch.equal(made[: crop(x).numel()], crop(x).flatten())
    assert torch.equal(made[crop(x).numel() :], scale(x).flatten())


def test_a_stack_of_one_is_that_operator_flattened():
    scale = DiagonalOp(numbers(4, 5, 6))
    x = numbers(4, 5, 6, seed=2)
    assert torch.equal(StackedOp((scale,))(x), scale(x).flatten())
    assert torch.equal(StackedOp((scale,)).H(x.flatten()), scale.H(x))


@pytest.mark.parametrize(
    "operators",
    [
        (),
        (DiagonalOp(numbers(4)), DiagonalOp(numbers(5))),
        (DiagonalOp(numbers(4)), DiagonalOp(numbers(4, dtype=torch.complex128))),
        (DiagonalOp(numbers(4)), DiagonalOp(numbers(4).float())),
    ],
)
def test_operators_of_several_domains_are_refused(operators):
    with pytest.raises(BadInputError, match="operators"):
        StackedOp(operators)
