"""Closed-form Gaussian estimates for operators that are Kronecker products: Wiener start and exact data step.

With A = A_0 x A_1 x A_2 and a prior covariance C = C_0 x C_1 x C_2 of the same kind, A C A' = V diag(l) V', where V and
l are Kronecker products of three small eigendecompositions, one per axis. What conjugate gradients would approach then
takes six matrix products per solve, exactly, at any ratio of noise to prior.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from mrcore.data.brief import Brief
from mrcore.data.grid import Triple
from mrcore.errors import BadInputError
from mrcore.operators.separable import SeparableOp


@dataclass(frozen=True, eq=False, repr=False)
class GaussianSolver(Brief):
    """Applies C A' (A C A' + ratio I)^-1 to scans (..., m_0, m_1, m_2); made by `gaussian_solver`.

    Attributes:
        to_modes: the scan in the eigenbasis of A C A'.
        from_modes: from there to the object, C A' included.
        power: eigenvalues (m_0, m_1, m_2), not negative.
    """

    to_modes: SeparableOp
    from_modes: SeparableOp
    power: Tensor

    def __call__(self, scan: Tensor, ratio: float | Tensor) -> Tensor:
        """Return the object (..., n_0, n_1, n_2); `ratio` is noise over prior variance, broadcast against the scan.

        Autocast is off inside: in bfloat16 the small eigenvalues would be lost.
        """
        with torch.autocast(scan.device.type, enabled=False):
            return self.from_modes(self.to_modes(scan.to(self.power.dtype)) / (self.power + ratio))


def gaussian_solver(operator: SeparableOp, correlation_voxels: Triple | None) -> GaussianSolver:
    """Decompose `operator` for the prior covariance exp(-|i - j| / correlation_voxels) along each axis.

    With None the covariance is the identity. Then `z + solver(y - A z, s^2 / t^2)` is the exact minimiser of
    |A x - y|^2 / s^2 + |x - z|^2 / t^2, the proximal step of the data; with a correlation, `solver(y, s^2 / v)` is the
    mean of objects of variance v given the scan y with white noise of sd s: the Wiener estimate (Rasmussen & Williams,
    Gaussian Processes, 2006, eq. 2.25).

    Raises:
        BadInputError: correlation lengths that are not positive.
    """
    if correlation_voxels is not None and not min(correlation_voxels) > 0:
        raise BadInputError(f"correlation lengths are in voxels and positive, got {correlation_voxels}")
    to_modes, from_modes, powers = [], [], []
    for axis, matrix in enumerate(operator.matrices):
        a = matrix.double()
        transposed = a.T if correlation_voxels is None else _covariance(a, correlation_voxels[axis]) @ a.T
        power, modes = torch.linalg.eigh(a @ transposed)
        powers.append(power.clamp_min(0).to(matrix.dtype))
        to_modes.append(modes.T.to(matrix.dtype).contiguous())
        from_modes.append((transposed @ modes).to(matrix.dtype))
    power = powers[0][:, None, None] * powers[1][None, :, None] * powers[2]
    return GaussianSolver(_separable(to_modes), _separable(from_modes), power)


def _covariance(like: Tensor, length: float) -> Tensor:
    at = torch.arange(like.shape[1], dtype=like.dtype, device=like.device)
    return torch.exp(-(at[:, None] - at[None]).abs() / length)


def _separable(matrices: list[Tensor]) -> SeparableOp:
    return SeparableOp(cast("tuple[Tensor, Tensor, Tensor]", tuple(matrices)))
