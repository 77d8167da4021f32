"""Standard tests that every operator passes, and the algebra of operators."""

import importlib
import inspect
import pickle
import pkgutil

import pytest
import torch
from operators import OPERATORS, numbers

from mrcore.errors import BadInputError
from mrcore.operators.fourier import FourierOp
from mrcore.operators.indexing import CropOp
from mrcore.operators.linop import LinearOp, real_dtype, same_device
from mrcore.operators.pointwise import CoilOp, DiagonalOp
from mrcore.operators.separable import SeparableOp

PACKAGES = ("mrcore", "ulfsim", "inr", "recon")
C128 = torch.complex128

every_operator = pytest.mark.parametrize("name", OPERATORS)


def domain(op: LinearOp, *batch: int, seed: int = 1) -> torch.Tensor:
    return numbers(*batch, *op.shape_in, dtype=C128 if op.complex_in else torch.float64, seed=seed)


def image_of(op: LinearOp, *batch: int, seed: int = 2) -> torch.Tensor:
    return numbers(*batch, *op.shape_out, dtype=C128 if op.complex_out else torch.float64, seed=seed)


def inner(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.vdot(a.flatten(), b.flatten())


def subclasses(cls: type) -> set[type]:
    return {c for sub in cls.__subclasses__() for c in {sub, *subclasses(sub)}}


def test_operator_table_is_complete():
    for package in PACKAGES:
        root = importlib.import_module(package)
        for module in pkgutil.walk_packages(root.__path__, f"{package}."):
            importlib.import_module(module.name)
    concrete = {
        c for c in subclasses(LinearOp) if not inspect.isabstract(c) and c.__module__.partition(".")[0] in PACKAGES
    }
    seen: set[type] = set()
    waiting = [build() for build in OPERATORS.values()]
    while waiting:
        op = waiting.pop()
        seen.add(type(op))
        waiting += [part for part in vars(op).values() if isinstance(part, LinearOp)]
    assert {c.__qualname__ for c in concrete - seen} == set()


@every_operator
def test_dot_product(name):
    op = OPERATORS[name]()
    x, y = domain(op), image_of(op)
    left, right = inner(op(x), y), inner(x, op.H(y))
    if op.complex_in != op.complex_out:  # linear over the reals only
        left, right = left.real, right.real
    scale = torch.linalg.vector_norm(op(x)) * torch.linalg.vector_norm(y)
    assert abs(left - right) <= 1e-10 * scale


@every_operator
def test_dot_product_of_complex_data(name):
    op = OPERATORS[name]()
    if op.complex_in is not False:
        x, y = numbers(*op.shape_in, dtype=C128, seed=1), numbers(*op.shape_out, dtype=C128, seed=2)
        scale = torch.linalg.vector_norm(op(x)) * torch.linalg.vector_norm(y)
        assert abs(inner(op(x), y) - inner(x, op.H(y))) <= 1e-10 * scale


@every_operator
def test_operator_does_something(name):
    op = OPERATORS[name]()
    reads_nothing = name == "resample outside"
    assert (float(op(domain(op)).abs().max()) == 0) == reads_nothing


@every_operator
def test_linear(name):
    op = OPERATORS[name]()
    x, y, factor = domain(op), domain(op, seed=3), -1.7
    if op.complex_in:
        factor = -1.7 + 0.4j
    torch.testing.assert_close(op(x + factor * y), op(x) + factor * op(y), rtol=1e-11, atol=1e-12)


@every_operator
def test_shapes_and_kinds(name):
    op = OPERATORS[name]()
    x = domain(op)
    out = op(x)
    assert out.shape == op.shape_out
    assert out.dtype == (C128 if op.complex_out else torch.float64)
    assert op.H(out).shape == op.shape_in
    assert op.H(out).dtype == x.dtype


@every_operator
def test_refuses_other_shapes(name):
    op = OPERATORS[name]()
    name, sizes = type(op).__name__.lstrip("_"), ", ".join(map(str, op.shape_in))
    wrong = numbers(*op.shape_in[:-1], op.shape_in[-1] + 1, dtype=C128 if op.complex_in else torch.float64)
    with pytest.raises(BadInputError, match=rf"{name} expects data of shape \(\.\.\., {sizes}\), got"):
        op(wrong)


@every_operator
def test_refuses_missing_axes(name):
    op = OPERATORS[name]()
    with pytest.raises(BadInputError, match="expects data of shape"):
        op(domain(op)[0])


@every_operator
def test_refuses_other_precision(name):
    op = OPERATORS[name]()
    x = domain(op)
    with pytest.raises(BadInputError, match=r"works in .*(64|128), the data are .*; convert one of them"):
        op(x.to(torch.complex64 if x.is_complex() else torch.float32))


@every_operator
def test_refuses_other_complexness(name):
    op = OPERATORS[name]()
    if op.complex_in is None:
        x = domain(op)
        torch.testing.assert_close(op(torch.complex(x, -2 * x)), torch.complex(op(x), -2 * op(x)))
    else:
        with pytest.raises(BadInputError, match=f"expects {'complex' if op.complex_in else 'real'} data"):
            op(domain(op).real if op.complex_in else domain(op).to(C128))


@every_operator
def test_gradcheck(name):
    op = OPERATORS[name]()
    x = domain(op).requires_grad_()
    assert torch.autograd.gradcheck(op, (x,), fast_mode=True)
    assert torch.autograd.gradcheck(op.H, (image_of(op).requires_grad_(),), fast_mode=True)


@every_operator
def test_gradient_of_half_the_squared_residual_with_real_input(name):
    op = OPERATORS[name]()
    x, y = domain(op).requires_grad_(), image_of(op)
    (0.5 * (op(x) - y).abs().square().sum()).backward()
    torch.testing.assert_close(x.grad, op.H(op(x.detach()) - y), rtol=1e-10, atol=1e-10)


@every_operator
def test_adjoint_is_the_backward(name):
    op = OPERATORS[name]()
    x, y = domain(op).requires_grad_(), image_of(op)
    (gradient,) = torch.autograd.grad(op(x), x, y)
    assert torch.equal(gradient, op.H(y))


@every_operator
def test_second_derivative(name):
    op = OPERATORS[name]()
    assert torch.autograd.gradgradcheck(
        lambda x: op(x).abs().square().sum(), (domain(op).requires_grad_(),), fast_mode=True
    )


@every_operator
def test_adjoint_of_adjoint(name):
    op = OPERATORS[name]()
    twice = op.H.H
    assert (twice.shape_in, twice.shape_out) == (op.shape_in, op.shape_out)
    assert torch.equal(twice(domain(op)), op(domain(op)))


@every_operator
def test_batch_axes(name):
    op = OPERATORS[name]()
    x = domain(op, 2, 3)
    together, adjoint = op(x), op.H(op(x))
    assert together.shape == (2, 3, *op.shape_out)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(together[i, j], op(x[i, j]), rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(adjoint[i, j], op.H(together[i, j]), rtol=1e-12, atol=1e-12)


@every_operator
def test_survives_pickling(name):
    op = OPERATORS[name]()
    copy = pickle.loads(pickle.dumps(op))
    assert torch.equal(copy(domain(op)), op(domain(op)))


@every_operator
def test_does_not_change_its_input(name):
    op = OPERATORS[name]()
    x, y = domain(op), image_of(op)
    op(x).zero_()
    op.H(y).zero_()
    assert torch.equal(x, domain(op))
    assert torch.equal(y, image_of(op))


@every_operator
def test_to_other_precision_and_back(name):
    op = OPERATORS[name]()
    x = domain(op)
    single = op.to("cpu", torch.float32)
    assert real_dtype(single.dtype) == torch.float32
    out = single(x.to(torch.complex64 if x.is_complex() else torch.float32))
    assert real_dtype(out.dtype) == torch.float32
    torch.testing.assert_close(out.to(op(x).dtype), op(x), rtol=1e-4, atol=1e-4)
    assert real_dtype(op.dtype) == torch.float64
    assert torch.equal(op.to("cpu")(x), op(x))
    assert single.to("cpu", torch.float64)(x).shape == op.shape_out


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_operator
def test_on_a_gpu_as_on_the_cpu(name):
    op = OPERATORS[name]()
    moved = op.to("cuda")
    x, y = domain(op), image_of(op)
    torch.testing.assert_close(moved(x.cuda()).cpu(), op(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(moved.H(y.cuda()).cpu(), op.H(y), rtol=1e-10, atol=1e-10)
    with pytest.raises(BadInputError, match="is on cuda"):
        moved(x)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CropOp((4,), (2,), torch.float64) @ CropOp((6,), (3,), torch.float64), r"gives \(3,\), .* \(4,\)"),
        (
            lambda: DiagonalOp(numbers(3)) @ DiagonalOp(numbers(3).float()),
            "compose operators of .*float64 and .*float32",
        ),
        (lambda: FourierOp((4, 5), n_axes=3), "n_axes must be between 1 and the 2 axes of .4, 5., got 3"),
        (lambda: FourierOp((4, 5), n_axes=0), "n_axes"),
        (lambda: RealOnly() @ FourierOp((3,), C128), "outer takes, inner gives: one side is real, the other complex"),
        (lambda: RealOnly() @ (DiagonalOp(numbers(3)) @ FourierOp((3,), C128)), "one side is real"),
        (lambda: DiagonalOp(numbers(3)) + DiagonalOp(numbers(4)), r"shapes \(3,\) -> \(3,\) and \(4,\) -> \(4,\)"),
        (lambda: DiagonalOp(numbers(3)) + DiagonalOp(numbers(3).float()), "add operators of"),
        (lambda: RealOnly() + FourierOp((3,), C128), "different domains: one side is real, the other complex"),
        (lambda: DiagonalOp(numbers(3)) @ DiagonalOp(numbers(3).to("meta")), "compose operators on cpu and meta"),
        (lambda: DiagonalOp(numbers(3))(numbers(3).to("meta")), "is on cpu, the data are on meta"),
        (lambda: DiagonalOp(torch.ones(3, dtype=torch.bool)), "must be a floating tensor, got torch.bool"),
        (lambda: DiagonalOp(numbers(3).requires_grad_()), "is a constant, no gradient would reach it"),
        (lambda: CoilOp(numbers(2, 3)), "coil sensitivities must be complex"),
        (lambda: CropOp((3, 3), (3, 4)), "must not enlarge"),
        (lambda: SeparableOp((numbers(2, 3),) * 2), "three real matrices"),
        (lambda: SeparableOp((numbers(2, 3), numbers(2, 3), numbers(2, 3).float())), "one dtype"),
    ],
)
def test_refuses_what_does_not_fit(build, message):
    with pytest.raises(BadInputError, match=message):
        build()


class RealOnly(LinearOp):
    """Doubles real data of shape (3,)."""

    shape_in = shape_out = (3,)
    dtype, device = torch.float64, torch.device("cpu")
    complex_in = complex_out = False

    def _apply(self, x):
        return 2 * x

    def _adjoint(self, y):
        return 2 * y

    def to(self, device, dtype=None):
        return self


def test_complexness_passes_through_operators_that_follow_their_data():
    follow, fourier = DiagonalOp(numbers(3)), FourierOp((3,), C128)
    assert (follow.complex_in, (follow @ follow).complex_out) == (None, None)
    for op in (follow @ fourier, fourier @ follow, follow + DiagonalOp(numbers(3, dtype=C128))):
        assert (op.complex_in, op.complex_out) == (True, True)
    assert (follow @ RealOnly()).complex_in is False


def test_algebra_against_dense_matrices():
    a, b, c = numbers(4, 4, seed=1), numbers(4, 4, seed=2), numbers(4, seed=3)
    first, second = (SeparableOp((torch.eye(1).double(), torch.eye(1).double(), m)) for m in (a, b))
    x = numbers(1, 1, 4, seed=4)
    torch.testing.assert_close((first @ second)(x)[0, 0], a @ b @ x[0, 0])
    torch.testing.assert_close((3 * first + second * -2.0)(x)[0, 0], (3 * a - 2 * b) @ x[0, 0])
    torch.testing.assert_close((first @ second).H(x)[0, 0], b.T @ a.T @ x[0, 0])
    torch.testing.assert_close((DiagonalOp(c[None, None]) @ first)(x)[0, 0], c * (a @ x[0, 0]))


def test_devices_without_number_match_any():
    assert same_device(torch.device("cuda"), torch.device("cuda:1"))
    assert not same_device(torch.device("cuda:0"), torch.device("cuda:1"))
    assert not same_device(torch.device("cpu"), torch.device("cuda"))


def test_an_operator_says_from_where_to_where():
    operator = CropOp((6, 8, 4), (3, 5, 3), torch.float32)
    assert repr(operator) == "CropOp(6 x 8 x 4 to 3 x 5 x 3, float32 on cpu)"
    assert repr(operator.H) == "Adjoint(3 x 5 x 3 to 6 x 8 x 4, float32 on cpu)"
