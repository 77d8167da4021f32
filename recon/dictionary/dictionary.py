"""Dictionaries: the signals, or their coefficients in a subspace, over a logarithmic grid of T1, T2 and B1."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.data.brief import Brief
from mrcore.errors import BadInputError
from mrcore.signals.bssfp import bssfp_signals
from mrcore.signals.epg import UNIFORM_SLICE, SliceProfile, fisp_signals
from mrcore.signals.mrf_sequence import MrfSequence
from recon.encoding.subspace import Subspace, compress

SignalModel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""T1 (s), T2 (s) and B1 (factor), each (atoms,), to signals (atoms, frames) per unit of PD."""
ModelOf = Callable[[MrfSequence], SignalModel]
"""The kind of train: `fisp_model` or `bssfp_model`, perhaps with a slice profile (`functools.partial`)."""

_BLOCK_BYTES = 128 * 2**20


@dataclass(frozen=True, eq=False, repr=False)
class AtomGrid(Brief):
    """Atoms `t1_s`, `t2_s`, `b1` (atoms,) on a lattice whose neighbours differ by the factor 1 + `step`.

    `lattice` (n T1, n T2, n B1) int64 says which atom lies at a point, -1 where there is none (T2 above T1).
    """

    t1_s: Tensor
    t2_s: Tensor
    b1: Tensor
    step: float
    lattice: Tensor

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.t1_s)

    def to(self, device: torch.device | str) -> AtomGrid:
        """Return the grid on a device."""
        t1_s, t2_s, b1, lattice = (tensor.to(device) for tensor in (self.t1_s, self.t2_s, self.b1, self.lattice))
        return AtomGrid(t1_s, t2_s, b1, self.step, lattice)


@dataclass(frozen=True, eq=False, repr=False)
class Dictionary(Brief):
    """Atoms over a grid: `atoms` (atoms, frames), or (atoms, rank) coefficients in `subspace`, per unit of PD.

    Raises:
        BadInputError: atoms that do not fit the grid, are not finite or vanish.
    """

    grid: AtomGrid
    atoms: Tensor
    subspace: Subspace | None = None

    def __post_init__(self) -> None:
        if self.atoms.ndim != 2 or len(self.atoms) != self.grid.n_atoms:
            raise BadInputError(f"{self.grid.n_atoms} atoms expected, got the shape {tuple(self.atoms.shape)}")
        norms = self.atoms.norm(dim=1)
        if not bool(norms.isfinite().all()) or not bool((norms > 0).all()):
            raise BadInputError("every atom must be finite and must have a signal")

    def to(self, device: torch.device | str) -> Dictionary:
        """Return the dictionary on a device."""
        return Dictionary(self.grid.to(device), self.atoms.to(device), self.subspace)


def log_grid(
    t1_range_s: tuple[float, float] = (0.1, 5.0),
    t2_range_s: tuple[float, float] = (0.01, 2.0),
    step: float = 0.05,
    b1: tuple[float, ...] = (1.0,),
    dtype: torch.dtype = torch.float32,
) -> AtomGrid:
    """Return the grid of T1 and T2 in steps of the factor 1 + `step`, T2 <= T1, for each B1.

    Raises:
        BadInputError: ranges that are empty, not positive or in milliseconds; no atoms with T2 <= T1.
    """
    axes = []
    for name, (low, high) in (("T1", t1_range_s), ("T2", t2_range_s)):
        if not 0 < low <= high:
            raise BadInputError(f"the range of {name} must rise from above 0, got {low:g} to {high:g} s")
        if high > 60:
            raise BadInputError(f"a {name} of {high:g} s: were milliseconds given for seconds?")
        n = math.floor(math.log(high / low) / math.log1p(step) + 1e-9) + 1 if step > 0 else 0
        if n < 1:
            raise BadInputError(f"the step must be above 0, got {step:g}")
        axes.append(low * (1 + step) ** torch.arange(n, dtype=torch.float64))
    if not b1 or min(b1) <= 0:
        raise BadInputError(f"B1 must be factors above 0, got {b1}")
    t1_s, t2_s, scale = torch.meshgrid(*axes, torch.tensor(b1, dtype=torch.float64), indexing="ij")
    within = t2_s <= t1_s * (1 + 1e-9)
    n_atoms = int(within.sum())
    if not n_atoms:
        raise BadInputError("no T2 of the grid is below its T1")
    lattice = torch.full(within.shape, -1)
    lattice[within] = torch.arange(n_atoms)
    return AtomGrid(t1_s[within].to(dtype), t2_s[within].to(dtype), scale[within].to(dtype), step, lattice)


def fisp_model(sequence: MrfSequence, profile: SliceProfile = UNIFORM_SLICE, tolerance: float = 1e-4) -> SignalModel:
    """Return the signals of a FISP train as a function of T1, T2 and B1; see `mrcore.signals.epg.fisp_signals`."""
    return lambda t1_s, t2_s, b1: fisp_signals(sequence, t1_s, t2_s, b1, profile, tolerance)


def bssfp_model(
    sequence: MrfSequence, off_resonance_hz: float = 0.0, profile: SliceProfile = UNIFORM_SLICE
) -> SignalModel:
    """Return the signals of a balanced train at one off-resonance as a function of T1, T2 and B1."""

    def signals(t1_s: Tensor, t2_s: Tensor, b1: Tensor) -> Tensor:
        shift_hz = torch.full_like(t1_s, off_resonance_hz)
        total = torch.zeros((len(t1_s), sequence.n_frames), dtype=t1_s.dtype.to_complex(), device=t1_s.device)
        for factor, weight in zip(profile.factors, profile.weights, strict=True):
            total += weight * bssfp_signals(sequence, t1_s, t2_s, shift_hz, factor * b1)
        return total

    return signals


def signal_blocks(grid: AtomGrid, model: SignalModel, n_frames: int) -> Iterator[Tensor]:
    """Yield the signals (some atoms, frames) in the order of the grid, in blocks of bounded memory."""
    size = max(1, _BLOCK_BYTES // (8 * n_frames))
    for start in range(0, grid.n_atoms, size):
        here = slice(start, start + size)
        yield model(grid.t1_s[here], grid.t2_s[here], grid.b1[here])


def build_dictionary(grid: AtomGrid, model: SignalModel, n_frames: int, subspace: Subspace | None = None) -> Dictionary:
    """Return the dictionary; with a `subspace` only the coefficients are ever held for all atoms."""
    blocks = signal_blocks(grid, model, n_frames)
    parts = [block if subspace is None else compress(subspace, block) for block in blocks]
    return Dictionary(grid, torch.cat(parts), subspace)


def compress_dictionary(dictionary: Dictionary, subspace: Subspace) -> Dictionary:
    """Return the coefficients of a dictionary of signals.

    Raises:
        BadInputError: a dictionary that is compressed already.
    """
    if dictionary.subspace is not None:
        raise BadInputError("the dictionary holds coefficients already; compress the one of signals")
    return Dictionary(dictionary.grid, compress(subspace, dictionary.atoms), subspace)
