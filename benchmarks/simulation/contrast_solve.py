"""The contrast solve: its time, and its cost against scipy's solver and the published one (64 starts)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, lsq_linear, minimize

from ulfsim.calibration.bounded import solve_bounded
from ulfsim.calibration.gauge import differences

Array = NDArray[np.float64]
NAMES = ("CSF", "GM", "WM")


@dataclass(frozen=True)
class SolveFacts:
    """Microseconds a solve, and the largest relative excess of our cost over that of another solver (0: never worse).

    `us_batch` is for many targets of one source, as a sampler draws them; `us_batch_bounded` where each has a gain on
    a bound.
    """

    us_single: float
    us_single_bounded: float
    us_batch: float
    us_batch_bounded: float
    us_scipy: float
    excess_over_scipy: float
    excess_over_starts: float
    n_scipy: int
    n_starts: int
    n_problems_started: int


def contrast_solve(n_scipy: int = 1000, n_problems: int = 10, n_starts: int = 64, seed: int = 1) -> SolveFacts:
    """Compare and time the solve on random problems of the sizes that scans give; some 20 s for 64 starts of 10."""
    generator = np.random.default_rng(seed)
    excess = max(_excess_over_scipy(*_problem(generator)) for _ in range(n_scipy))
    started = max(_excess_over_starts(*_problem(generator), n_starts, generator) for _ in range(n_problems))
    rows, right = _problem(generator)
    targets = right * generator.uniform(0.9, 1.1, size=(10_000, 1))
    # Bounds wide enough for all, and narrow enough for none.
    wide = 10 * np.abs(solve_bounded(rows, right, -np.inf, np.inf)).max()
    narrow = 0.5 * np.abs(solve_bounded(rows, right, 0.0, np.inf)).max()
    return SolveFacts(
        _us(lambda: solve_bounded(rows, right, -wide, wide), 1000),
        _us(lambda: solve_bounded(rows, right, 0.0, narrow), 1000),
        _us(lambda: solve_bounded(rows, targets, -wide, wide), 5) / len(targets),
        _us(lambda: solve_bounded(rows, targets, 0.0, narrow), 5) / len(targets),
        _us(lambda: lsq_linear(rows, right, bounds=(0, narrow), method="bvls", tol=1e-14), 200),
        excess,
        started,
        n_scipy,
        n_starts,
        n_problems,
    )


def _problem(generator: np.random.Generator) -> tuple[Array, Array]:
    """Return rows and right side: our gauge or the published one, partial volumes, targets within reach and beyond."""
    snr = np.sort(generator.uniform(20, 400, size=3))
    target = snr * generator.uniform(0.05, 1.5, size=3)
    mixing = np.eye(3) + generator.uniform(0, 0.1, size=(3, 3))
    matrix = mixing / mixing.sum(1, keepdims=True) * snr
    contrasts = differences(NAMES)
    if generator.uniform() < 0.5:
        return np.vstack([contrasts @ matrix, matrix]), np.r_[contrasts @ target, target]
    return np.vstack([contrasts * snr, np.sqrt(2e-6) * np.eye(3)]), np.r_[contrasts @ target, np.zeros(3)]


def _cost(rows: Array, right: Array, x: Array) -> float:
    return float(np.square(rows @ x - right).sum())


def _excess_over_scipy(rows: Array, right: Array) -> float:
    ours = _cost(rows, right, solve_bounded(rows, right, 0.0, 1.0))
    theirs = _cost(rows, right, lsq_linear(rows, right, bounds=(0, 1), method="bvls", tol=1e-14).x)
    return _excess(ours, theirs, right)


def _excess_over_starts(rows: Array, right: Array, n_starts: int, generator: np.random.Generator) -> float:
    ours = _cost(rows, right, solve_bounded(rows, right, 0.0, 1.0))
    hessian = 2 * rows.T @ rows
    costs = []
    for start in generator.uniform(size=(n_starts, 3)):
        found = minimize(
            lambda x: _cost(rows, right, x),
            start,
            jac=lambda x: 2 * rows.T @ (rows @ x - right),
            hess=lambda _: hessian,
            method="trust-constr",
            bounds=Bounds(0, 1),
        )
        costs.append(_cost(rows, right, found.x.clip(0, 1)))
    return _excess(ours, min(costs), right)


def _excess(ours: float, theirs: float, right: Array) -> float:
    # Where targets can be met exactly, both costs are rounding; what counts is then the size of the target.
    return max(0.0, (ours - theirs) / max(theirs, 1e-12 * float(right @ right)))


def _us(run: Callable[[], object], n_repeats: int) -> float:
    run()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(n_repeats):
            run()
        times.append((time.perf_counter() - start) / n_repeats)
    return 1e6 * min(times)
