import numpy as np
import pytest
from scipy.optimize import LinearConstraint, lsq_linear, minimize

from mrcore.errors import BadInputError
from ulfsim.calibration.bounded import solve_bounded


def _problem(generator, n):
    n_rows = n + int(generator.integers(0, 5))
    rows = generator.normal(size=(n_rows, n)) * 10 ** generator.uniform(-3, 3, size=n)
    upper = 10 ** generator.uniform(-2, 1) / np.abs(rows).max(0)
    return rows, generator.normal(size=n_rows), upper


def _cost(rows, right, x):
    return float(np.square(rows @ x - right).sum())


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_cost_is_never_worse_than_scipys_and_bounds_are_kept(n):
    generator = np.random.default_rng(n)
    on_bound = 0
    for _ in range(60):
        rows, right, upper = _problem(generator, n)
        x = solve_bounded(rows, right, 0.0, upper)
        assert (x >= 0).all()
        assert (x <= upper).all()
        other = lsq_linear(rows, right, bounds=(0, upper), method="bvls", tol=1e-14).x
        assert _cost(rows, right, x) <= _cost(rows, right, other) * (1 + 1e-9) + 1e-12 * right @ right
        on_bound += int(((x == 0) | (x == upper)).any())
    assert on_bound > 20


def test_cost_is_never_worse_than_that_of_many_trust_constr_starts():
    """The published solver, on a badly determined problem: contrasts with a weak damping."""
    generator = np.random.default_rng(7)
    rows, right, upper = _problem(generator, 3)
    x = solve_bounded(rows, right, 0.0, upper)
    scaled = rows * upper
    for start in generator.uniform(size=(8, 3)):
        found = minimize(
            lambda v: float(np.square(scaled @ v - right).sum()),
            start,
            jac=lambda v: 2 * scaled.T @ (scaled @ v - right),
            hess=lambda _: 2 * scaled.T @ scaled,
            method="trust-constr",
            constraints=LinearConstraint(np.eye(3), 0, 1),
        )
        assert _cost(rows, right, x) <= _cost(scaled, right, found.x.clip(0, 1)) * (1 + 1e-9)


def test_a_batch_gives_what_its_members_give():
    generator = np.random.default_rng(3)
    rows, right = generator.normal(size=(4, 5, 6, 3)), generator.normal(size=(4, 5, 6))
    together = solve_bounded(rows, right, 0.0, 0.2)
    assert together.shape == (4, 5, 3)
    alone = [[solve_bounded(rows[i, j], right[i, j], 0.0, 0.2) for j in range(5)] for i in range(4)]
    assert together == pytest.approx(np.array(alone), abs=1e-12)
    shared = solve_bounded(rows[0, 0], right, 0.0, 0.2)
    assert shared[2, 3] == pytest.approx(solve_bounded(rows[0, 0], right[2, 3], 0.0, 0.2), abs=1e-12)


def test_known_corners():
    # Correlated columns: clipping (2, -1) to (2, 0) would be wrong.
    rows = np.array([[1.0, 1.0], [0.0, 1.0]])
    assert solve_bounded(rows, [1.0, -1.0], 0.0, np.inf) == pytest.approx([1.0, 0.0])
    assert solve_bounded(rows, [1.0, -1.0], -np.inf, np.inf) == pytest.approx([2.0, -1.0])
    assert solve_bounded(rows, [1.0, -1.0], [0.5, 0.0], [0.5, 3.0]) == pytest.approx([0.5, 0.0])
    assert solve_bounded(rows, [9.0, 9.0], 0.0, [np.inf, 2.0]) == pytest.approx([7.0, 2.0])


def test_weak_directions_keep_their_digits():
    """Condition number 4e6: the normal equations alone leave fewer digits."""
    rows = np.array([[1.0, 1.0, 0.0], [1.0, 1.0 + 1e-6, 0.0], [0.0, 0.0, 1.0]])
    x = np.array([0.3, 0.4, 0.5])
    assert solve_bounded(rows, rows @ x, 0.0, 1.0) == pytest.approx(x, rel=2e-6)


def test_what_cannot_be_solved_is_refused():
    with pytest.raises(BadInputError, match="unknowns"):
        solve_bounded(np.ones((2, 3)), np.ones(2), 0.0, 1.0)
    with pytest.raises(BadInputError, match="no effect"):
        solve_bounded([[1.0, 0.0], [1.0, 0.0]], [1.0, 1.0], 0.0, 1.0)
    with pytest.raises(BadInputError, match="depend"):
        solve_bounded([[1.0, 1.0], [1.0, 1.0]], [1.0, 1.0], 0.0, 1.0)
    with pytest.raises(BadInputError, match="above"):
        solve_bounded(np.eye(2), [1.0, 1.0], 1.0, 0.0)
    with pytest.raises(BadInputError, match="not finite"):
        solve_bounded(np.eye(2), [1.0, np.nan], 0.0, 1.0)
