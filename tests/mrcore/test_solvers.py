"""Solvers against dense linear algebra, and what they say about themselves."""

import pytest
import torch
from operators import numbers, separable

from mrcore.operators.fourier import FourierOp
from mrcore.operators.pointwise import DiagonalOp
from mrcore.solvers import conjugate_gradient, power_iteration


def spd(n: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    a = numbers(n, n, dtype=dtype)
    return a @ a.mH + torch.eye(n, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("start", [None, 7])
def test_cg_agrees_with_a_dense_solve(dtype, start):
    matrix, rhs = spd(12, dtype), numbers(12, dtype=dtype, seed=5)
    first = None if start is None else numbers(12, dtype=dtype, seed=start)
    solution = conjugate_gradient(lambda x: matrix @ x, rhs, first, max_iter=40, tolerance=1e-12)
    assert solution.converged
    assert solution.n_iter == len(solution.history) <= 20
    torch.testing.assert_close(solution.x, torch.linalg.solve(matrix, rhs), rtol=1e-9, atol=1e-9)


def test_cg_history_is_the_true_relative_residual():
    matrix, rhs = spd(12), numbers(12, seed=5)
    for n_iter in (1, 4):
        solution = conjugate_gradient(lambda x: matrix @ x, rhs, max_iter=n_iter, tolerance=0)
        residual = torch.linalg.vector_norm(rhs - matrix @ solution.x) / torch.linalg.vector_norm(rhs)
        assert solution.history[-1] == pytest.approx(float(residual), rel=1e-9)
        assert not solution.converged
        assert solution.message == f"stopped after {n_iter} steps at a relative residual of {float(residual):.2e}"


def test_cg_stops_at_the_tolerance_that_it_is_given():
    matrix, rhs = spd(12), numbers(12, seed=5)
    loose, tight = (conjugate_gradient(lambda x: matrix @ x, rhs, tolerance=t) for t in (1e-1, 1e-6))
    assert loose.n_iter < tight.n_iter
    assert loose.history[-1] < 1e-1 <= loose.history[-2]


def test_cg_through_an_operator_is_least_squares():
    op, y = separable((2, 3, 2), (4, 4, 3)), numbers(4, 4, 3, seed=3)
    solution = conjugate_gradient(lambda x: op.H(op(x)), op.H(y), max_iter=100, tolerance=1e-13)
    dense = torch.stack([op(e.reshape(op.shape_in)).flatten() for e in torch.eye(12, dtype=torch.float64)], 1)
    expected = torch.linalg.lstsq(dense, y.flatten()).solution
    torch.testing.assert_close(solution.x.flatten(), expected, rtol=1e-7, atol=1e-8)


def test_cg_says_that_an_operator_is_not_positive():
    solution = conjugate_gradient(lambda x: -x, numbers(5))
    assert not solution.converged
    assert "not positive" in solution.message
    assert torch.isfinite(solution.x).all()


def test_cg_stops_at_nan():
    solution = conjugate_gradient(lambda x: x * torch.nan, numbers(5))
    assert (solution.converged, solution.n_iter) == (False, 0)
    assert torch.isfinite(solution.x).all()


def test_cg_edge_cases():
    zero = conjugate_gradient(lambda x: x, torch.zeros(4))
    assert zero.converged
    assert "zero" in zero.message
    done = conjugate_gradient(lambda x: 2 * x, 2 * torch.ones(4), start=torch.ones(4))
    assert (done.converged, done.n_iter) == (True, 0)
    assert not conjugate_gradient(lambda x: x, torch.ones(4), max_iter=0).converged


def test_cg_leaves_its_input_alone():
    matrix, rhs, start = spd(6), numbers(6), numbers(6, seed=1)
    before = rhs.clone(), start.clone()
    conjugate_gradient(lambda x: matrix @ x, rhs, start)
    assert torch.equal(rhs, before[0])
    assert torch.equal(start, before[1])


def test_power_iteration_agrees_with_the_svd():
    op = separable((4, 3, 5), (3, 4, 5))
    expected = torch.tensor([float(torch.linalg.matrix_norm(m, 2)) for m in op.matrices]).prod()
    solution = power_iteration(op, torch.Generator().manual_seed(0), max_iter=500, tolerance=1e-9)
    assert solution.converged
    assert solution.x.dtype == torch.float64
    assert float(solution.x) == pytest.approx(float(expected), rel=1e-6)
    assert all(b >= a * (1 - 1e-12) for a, b in zip(solution.history, solution.history[1:], strict=False))


def test_power_iteration_on_complex_zero_and_few_steps():
    generator = torch.Generator().manual_seed(0)
    assert float(power_iteration(FourierOp((4, 5, 6)), generator).x) == pytest.approx(1, rel=1e-5)
    zero = power_iteration(DiagonalOp(torch.zeros(3)), generator)
    assert (zero.converged, float(zero.x)) == (True, 0)
    short = power_iteration(DiagonalOp(torch.tensor([1.0, 1.1])), generator, max_iter=2, tolerance=0)
    assert not short.converged
    assert "stopped after 2 steps" in short.message
