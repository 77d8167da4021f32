"""Solvers that say how they ended."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.data.brief import Brief
from mrcore.operators.linop import LinearOp, real_dtype

Watch = Callable[[], None]
"""Is called after each step of an iteration, for those who wait."""


def unwatched() -> None:
    """Do nothing: nobody waits."""


@dataclass(frozen=True, eq=False, repr=False)
class Solution(Brief):
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
    watch: Watch = unwatched,
) -> Solution:
    """Solve normal(x) = rhs for a Hermitian positive operator; `history` is the relative residual per step.

    Stops when the residual is below `tolerance` times the norm of `rhs`. The residual is the one that CG updates; in
    float32 it is trusted to about 1e-6.
    """
    x = torch.zeros_like(rhs) if start is None else start.clone()
    residual = rhs - normal(x) if start is not None else rhs.clone()
    direction = residual.clone()
    rhs_norm = float(torch.linalg.vector_norm(rhs))
    if rhs_norm == 0:
        return Solution(torch.zeros_like(rhs), True, 0, (), "the right-hand side is zero")
    squared = _inner(residual, residual)
    if math.sqrt(squared) / rhs_norm < tolerance:
        return Solution(x, True, 0, (), f"the start has a relative residual below {tolerance:g}")
    history: list[float] = []
    for step in range(1, max_iter + 1):
        mapped = normal(direction)
        curvature = _inner(direction, mapped)
        if not curvature > 0:  # catches NaN as well
            message = f"the operator is not positive: <d, A d> = {curvature:.3g} at step {step}"
            return Solution(x, False, step - 1, tuple(history), message)
        alpha = squared / curvature
        x = x + alpha * direction
        residual = residual - alpha * mapped
        previous, squared = squared, _inner(residual, residual)
        history.append(math.sqrt(squared) / rhs_norm)
        watch()
        if history[-1] < tolerance:
            return Solution(x, True, step, tuple(history), f"relative residual below {tolerance:g}")
        direction = residual + (squared / previous) * direction
    message = f"stopped after {max_iter} steps at a relative residual of {math.sqrt(squared) / rhs_norm:.2e}"
    return Solution(x, False, max_iter, tuple(history), message)


def power_iteration(
    operator: LinearOp, generator: torch.Generator, max_iter: int = 30, tolerance: float = 1e-3
) -> Solution:
    """Estimate the largest singular value of `operator` from below; `x` holds it as a 0-d tensor.

    `history` is the estimate per step; it never falls.
    """
    real = real_dtype(operator.dtype)
    v = torch.randn(operator.shape_in, generator=generator, dtype=real.to_complex() if operator.complex_in else real)
    v = (v / torch.linalg.vector_norm(v)).to(operator.device)
    history: list[float] = []

    def ended(converged: bool, message: str) -> Solution:
        value = torch.tensor(history[-1] if history else 0.0, dtype=real)
        return Solution(value, converged, len(history), tuple(history), message)

    for _ in range(max_iter):
        v = operator.H(operator(v))
        norm = float(torch.linalg.vector_norm(v))
        history.append(math.sqrt(norm))
        if norm == 0:
            return ended(True, "the operator maps everything to zero")
        v = v / norm
        if len(history) > 1 and abs(history[-1] - history[-2]) <= tolerance * history[-1]:
            return ended(True, f"relative change below {tolerance:g}")
    return ended(False, f"stopped after {max_iter} steps")


def _inner(a: Tensor, b: Tensor) -> float:
    return float(torch.vdot(a.reshape(-1), b.reshape(-1)).real)
