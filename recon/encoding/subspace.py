"""Temporal subspaces: the few combinations of frames in which the signals of a dictionary live."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.data.brief import Brief
from mrcore.errors import BadInputError


@dataclass(frozen=True, eq=False, repr=False)
class Subspace(Brief):
    """Orthonormal `basis` (frames, rank), real or complex, and the `energy` (frames,) of every direction, falling.

    Energies are shares of the whole. Signals x become coefficients V^H x, coefficients c become signals V c.

    Raises:
        BadInputError: a basis that is not orthonormal.
    """

    basis: Tensor
    energy: Tensor

    def __post_init__(self) -> None:
        gram = self.basis.mH @ self.basis
        if self.basis.ndim != 2 or (gram - torch.eye(len(gram)).to(gram)).abs().max() > 1e-4:
            raise BadInputError(f"the basis must have orthonormal columns, got the shape {tuple(self.basis.shape)}")

    @property
    def rank(self) -> int:
        """Number of coefficients."""
        return self.basis.shape[1]

    @property
    def energy_left_out(self) -> float:
        """Share of the energy of the signals, 0 to 1, that the basis cannot hold."""
        return float(self.energy[self.rank :].sum())


def subspace_of(signals: Tensor | Iterable[Tensor], rank: int) -> Subspace:
    """Return the `rank` directions of most energy of `signals`, (atoms, frames) or blocks of such, real or complex.

    A singular value decomposition without centring, in float64 through the (frames, frames) Gram matrix, so that
    signals need not be held together. Every atom counts with its norm, as with equal PD. McGivney et al., IEEE TMI
    2014;33:2311.

    Raises:
        BadInputError: a rank above the number of frames, signals that are not finite.
    """
    gram = None
    for block in [signals] if isinstance(signals, Tensor) else signals:
        wide = block.to(torch.promote_types(block.dtype, torch.float64))
        part = wide.mT @ wide.conj()
        gram = part if gram is None else gram + part
        dtype = block.dtype
    if gram is None or not bool(torch.isfinite(gram.abs()).all()):
        raise BadInputError("a subspace needs signals, and finite ones")
    if not 1 <= rank <= len(gram):
        raise BadInputError(f"the rank must lie between 1 and the number of frames, {len(gram)}, got {rank}")
    energy, vectors = torch.linalg.eigh(gram)
    energy = energy.flip(0).clamp_min(0)
    return Subspace(vectors.flip(1)[:, :rank].to(dtype), energy / energy.sum())


def compress(subspace: Subspace, signals: Tensor) -> Tensor:
    """Return the coefficients V^H x (..., rank) of signals (..., frames)."""
    basis = _like(subspace.basis.conj(), signals)
    return signals.to(basis.dtype) @ basis


def expand(subspace: Subspace, coefficients: Tensor) -> Tensor:
    """Return the signals V c (..., frames) of coefficients (..., rank), the adjoint of `compress`."""
    basis = _like(subspace.basis.mT, coefficients)
    return coefficients.to(basis.dtype) @ basis


def _like(basis: Tensor, values: Tensor) -> Tensor:
    """Return the basis in the dtype and on the device of the values; a complex basis makes these complex."""
    return basis.to(values.device, values.dtype.to_complex() if basis.is_complex() else values.dtype)
