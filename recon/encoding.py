"""Encoding: from subspace coefficients to the samples of all coils and frames, and the normal equations of that."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.errors import BadInputError
from mrcore.linop import LinearOp
from mrcore.nufft import NufftOp
from mrcore.ops import FourierOp
from recon.subspace import Subspace
from recon.subspace_ops import FusedNormalOp, PickOp, SubspaceOp
from recon.trajectory import Trajectory, cartesian_index


@dataclass(frozen=True, eq=False)
class Encoding:
    """`operator` A, coefficients (K, X, Y, Z) to samples (C, N), with `weights` W (N,) and `normal` A^H W A.

    The weights are those of the least squares ||W^(1/2) (y - A x)||^2, 1 for noise that is white. Density compensation
    as weight makes iterations converge faster and the noise of the result coloured: it is no longer the most likely
    image.
    """

    operator: LinearOp
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
) -> Encoding:
    """Return the encoding of a trajectory, in the precision and on the device of `coil_maps` (C, X, Y, Z).

    `weights` (N,) are real and not negative (None: 1). Samples that all lie on frequencies of the DFT go through the
    FFT, others through the NUFFT. The unit of samples is that of the orthonormal transform of coil image times basis.

    Raises:
        BadInputError: coil maps of another grid, a subspace of another number of frames, weights that do not fit.
    """
    if len(subspace.basis) != trajectory.n_frames:
        raise BadInputError(
            f"the subspace is of {len(subspace.basis)} frames, the trajectory has {trajectory.n_frames}: sequence and "
            "data must be of the same scan"
        )
    operator = SubspaceOp(_fourier(trajectory, coil_maps), subspace.basis, trajectory.frame, coil_maps)
    weights = _weights(weights, operator)
    return Encoding(operator, weights, FusedNormalOp(operator, weights))


def _fourier(trajectory: Trajectory, coil_maps: Tensor) -> LinearOp:
    shape, dtype, device = trajectory.grid.shape, coil_maps.dtype, coil_maps.device
    index = cartesian_index(trajectory)
    if index is not None:
        return PickOp(shape, index, dtype.to_complex(), device) @ FourierOp(shape, dtype, device)
    return NufftOp(trajectory.k_cyc_per_mm, shape, trajectory.grid.spacing_mm, dtype, device)


def _weights(weights: Tensor | None, operator: SubspaceOp) -> Tensor:
    n_samples, dtype = operator.shape_out[1], operator.dtype.to_real()
    if weights is None:
        return torch.ones(n_samples, dtype=dtype, device=operator.device)
    if tuple(weights.shape) != (n_samples,) or not weights.is_floating_point() or not bool((weights >= 0).all()):
        raise BadInputError(f"weights must be {n_samples} real numbers from 0, got {weights.dtype} {weights.shape}")
    return weights.to(operator.device, dtype)
