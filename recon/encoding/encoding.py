"""Encoding: from subspace coefficients to the samples of all coils and frames, and the normal equations of that."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.data.brief import Brief
from mrcore.errors import BadInputError
from mrcore.operators.fourier import FourierOp
from mrcore.operators.linop import LinearOp
from mrcore.operators.nufft import NufftOp
from recon.encoding.operators import FusedNormalOp, PickOp, SubspaceOp
from recon.encoding.subspace import Subspace
from recon.encoding.toeplitz import cartesian_normal, toeplitz_normal
from recon.trajectories.trajectory import Trajectory, cartesian_index

# Samples a voxel from which a Toeplitz operator is faster than two NUFFTs. Measured for one coil and K = 5 in single
# precision on a CPU, in ms for 0.25, 1.25 and 5 samples a voxel of 192 x 192 x 1: fused 12, 31, 102, Toeplitz 28; for
# 0.15, 0.6 and 2.5 of 64^3: fused 140, 280, 980, Toeplitz 280. Neither depends on the number of coils.
_TOEPLITZ_FROM = {1: 1.2, 2: 1.2, 3: 0.6}


@dataclass(frozen=True, eq=False, repr=False)
class Encoding(Brief):
    """`operator` A, coefficients (K, X, Y, Z) to samples (C, N), with `weights` W (N,) and `normal` A^H W A.

    The weights are those of the least squares ||W^(1/2) (y - A x)||^2, 1 for noise that is white. Density compensation
    as weight makes iterations converge faster and the noise of the result coloured: it is no longer the most likely
    image.
    """

    operator: SubspaceOp
    weights: Tensor
    normal: LinearOp

    @property
    def n_coils(self) -> int:
        """Number of receive channels."""
        return self.operator.shape_out[0]

    @property
    def rank(self) -> int:
        """Number of coefficients of a voxel."""
        return self.operator.shape_in[0]

    def right_hand_side(self, samples: Tensor) -> Tensor:
        """Return A^H W y (K, X, Y, Z) of samples y (C, N)."""
        return self.operator.H(self.weights * samples)


def subspace_encoding(
    trajectory: Trajectory,
    subspace: Subspace,
    coil_maps: Tensor,
    weights: Tensor | None = None,
    max_kernel_bytes: int = 4 * 2**30,
) -> Encoding:
    """Return the encoding of a trajectory, in the precision and on the device of `coil_maps` (C, X, Y, Z).

    `weights` (N,) are real and not negative (None: 1). Samples that all lie on frequencies of the DFT go through the
    FFT, others through the NUFFT. The unit of samples is that of the orthonormal transform of coil image times basis.
    The normal operator takes kernels in k-space where these are faster and need no more than `max_kernel_bytes`, else
    two transforms of every coil.

    Raises:
        BadInputError: coil maps of another grid, a subspace of another number of frames, weights that do not fit.
    """
    if len(subspace.basis) != trajectory.n_frames:
        raise BadInputError(
            f"the subspace is of {len(subspace.basis)} frames, the trajectory has {trajectory.n_frames}: sequence and "
            "data must be of the same scan"
        )
    grid, dtype, device = trajectory.grid, coil_maps.dtype, coil_maps.device
    pick, index = None, cartesian_index(trajectory)
    if index is None:
        fourier: LinearOp = NufftOp(trajectory.k_cyc_per_mm, grid.shape, grid.spacing_mm, dtype, device)
    else:
        pick = PickOp(grid.shape, index, dtype.to_complex(), device)
        fourier = pick @ FourierOp(grid.shape, dtype, device)
    operator = SubspaceOp(fourier, subspace.basis, trajectory.frame, coil_maps)
    weights = _weights(weights, operator)
    return Encoding(operator, weights, _normal(operator, pick, weights, max_kernel_bytes))


def reweighted(encoding: Encoding, weights: Tensor) -> Encoding:
    """Return the encoding with other `weights` (N,), whose normal operator is ready at once but not the fastest.

    Raises:
        BadInputError: weights that do not fit.
    """
    weights = _weights(weights, encoding.operator)
    return Encoding(encoding.operator, weights, FusedNormalOp(encoding.operator, weights))


def _normal(operator: SubspaceOp, pick: PickOp | None, weights: Tensor, max_kernel_bytes: int) -> LinearOp:
    """Return the faster normal operator."""
    rank, *shape = operator.shape_in
    n_axes, n_voxels = sum(n > 1 for n in shape), math.prod(shape)
    n_padded = n_voxels * 2**n_axes if pick is None else n_voxels
    n_bytes = rank * (rank + 1) // 2 * n_padded * operator.basis.element_size()
    few = pick is None and operator.shape_out[1] < _TOEPLITZ_FROM.get(n_axes, math.inf) * n_voxels
    if few or n_bytes > max_kernel_bytes:
        return FusedNormalOp(operator, weights)
    return toeplitz_normal(operator, weights) if pick is None else cartesian_normal(operator, pick, weights)


def _weights(weights: Tensor | None, operator: SubspaceOp) -> Tensor:
    n_samples, dtype = operator.shape_out[1], operator.dtype.to_real()
    if weights is None:
        return torch.ones(n_samples, dtype=dtype, device=operator.device)
    if tuple(weights.shape) != (n_samples,) or not weights.is_floating_point() or not bool((weights >= 0).all()):
        raise BadInputError(f"weights must be {n_samples} real numbers from 0, got {weights.dtype} {weights.shape}")
    return weights.to(operator.device, dtype)
