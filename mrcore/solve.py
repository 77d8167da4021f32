"""Solvers that say how they ended."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.linop import LinearOp


@dataclass(frozen=True, eq=False)
class Solution:
    """Result of an iteration: `x`, whether it `converged`, `n_iter`, one `history` value a step, and `message`."""

    x: Tensor
    converged: bool
    n_iter: int
    history: tuple[float, ...]
    message: str


def conjugate_gradient(
    normal: Callable[[Tensor], Tensor],
    rhs: Tensor,
    start: Tensor | None = None,
    max_iter: int = 30,
    tolerance: float = 1e-4,
) -> Solution:
    """Solve normal(x) = rhs for a Hermitian positive operator; `history` is the relative residual per step."""
    x = torch.zeros_like(rhs) if start is None else start.clone()
    residual = rhs - normal(x) if start is not None else rhs.clone()
    direction = residual.clone()
    rhs_norm = float(torch.linalg.vector_norm(rhs))
    if rhs_norm == 0:
        return Solution(torch.zeros_like(rhs), True, 0, (), "the right-hand side is zero")
    squared = _inner(residual, residual)
    history: list[float] = []
    for step in range(1, max_iter + 1):
        mapped = normal(direction)
        curvature = _inner(direction, mapped)
        if curvature <= 0:
            return Solution(x, False, step - 1, tuple(history), "the operator is not positive along a direction")
        alpha = squared / curvature
        x = x + alpha * direction
        residual = residual - alpha * mapped
        previous, squared = squared, _inner(residual, residual)
        history.append(math.sqrt(squared) / rhs_norm)
        if history[-1] < tolerance:
            return Solution(x, True, step, tuple(history), f"relative residual below {tolerance:g}")
        direction = residual + (squared / previous) * direction
    return Solution(x, False, max_iter, tuple(history), f"stopped after {max_iter} steps at {history[-1]:.2e}")


def power_iteration(
    operator: LinearOp, generator: torch.Generator, max_iter: int = 30, tolerance: float = 1e-3
) -> Solution:
    """Estimate the largest singular value of `operator` from below; `x` holds it as a 0-d tensor."""
    dtype = operator.dtype.to_complex() if operator.complex_in else operator.dtype
    v = torch.randn(operator.shape_in, generator=generator, dtype=dtype).to(operator.device)
    v = v / torch.linalg.vector_norm(v)
    history: list[float] = []
    for step in range(1, max_iter + 1):
        v = operator.H(operator(v))
        norm = float(torch.linalg.vector_norm(v))
        history.append(math.sqrt(norm))
        if norm == 0:
            return Solution(torch.zeros(()), True, step, tuple(history), "the operator maps everything to zero")
        v = v / norm
        if step > 1 and abs(history[-1] - history[-2]) <= tolerance * history[-1]:
            return Solution(torch.tensor(history[-1]), True, step, tuple(history), f"change below {tolerance:g}")
    return Solution(torch.tensor(history[-1]), False, max_iter, tuple(history), f"stopped after {max_iter} steps")


def _inner(a: Tensor, b: Tensor) -> float:
    return float(torch.vdot(a.reshape(-1), b.reshape(-1)).real)
