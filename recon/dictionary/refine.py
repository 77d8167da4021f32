"""T1 and T2 between the atoms of the grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.errors import BadInputError
from recon.dictionary.dictionary import AtomGrid, Dictionary
from recon.dictionary.matching import Match

_DAMPING = 1e-6
_LARGEST_STEPS = 2.0  # of the lattice, that one linear step may go


@dataclass(frozen=True, eq=False)
class Parameters:
    """Result of a voxel, each (voxels,): `t1_s`, `t2_s`, `b1`, the complex `pd` and the `fit`, 0 to 1, of `Match`.

    `signal` (voxels, length) is PD times the atom there.
    """

    t1_s: Tensor
    t2_s: Tensor
    b1: Tensor
    pd: Tensor
    fit: Tensor
    signal: Tensor


def on_grid(dictionary: Dictionary, match: Match) -> Parameters:
    """Return the parameters of the matched atoms themselves."""
    grid = dictionary.grid
    t1_s, t2_s, b1 = (values[match.atom] for values in (grid.t1_s, grid.t2_s, grid.b1))
    return Parameters(t1_s, t2_s, b1, match.pd, match.fit, match.pd[:, None] * dictionary.atoms[match.atom])


def refine(dictionary: Dictionary, match: Match, coefficients: Tensor, n_iter: int = 3) -> Parameters:
    """Return T1, T2 and PD between the atoms, at the B1 of the match, by Gauss-Newton steps from the matched atom.

    `coefficients` x (voxels, length) are those that were matched. Near an atom x = rho (B + u dB/du + v dB/dv), with
    u and v the logarithms of T1 and T2 relative to the atom's; the derivatives are differences between neighbours on
    the lattice. Each step expands about the atom nearest to the last result, so that errors stay those of half a step
    of the lattice. Results stay within the range of the grid and T2 <= T1.

    Raises:
        BadInputError: data that do not belong to the match or the dictionary.
    """
    grid, atoms = dictionary.grid, dictionary.atoms
    if coefficients.shape != (len(match.atom), atoms.shape[1]):
        raise BadInputError(
            f"{len(match.atom)} matched voxels need coefficients of length {atoms.shape[1]}, "
            f"got {tuple(coefficients.shape)}"
        )
    position, slopes = _positions(grid), lattice_slopes(grid, atoms)
    data = coefficients.to(atoms.dtype.to_complex())
    atom, log_step = match.atom, math.log1p(grid.step)
    for iteration in range(n_iter):
        value = atoms[atom]
        u, v, pd = _linear_fit(data, value, slopes[0][atom], slopes[1][atom])
        at = torch.stack([u, v], 1) / log_step
        at = position[atom][:, :2] + at.clamp(-_LARGEST_STEPS, _LARGEST_STEPS)
        if iteration + 1 < n_iter:
            atom = _nearest(grid, at, position[atom][:, 2], atom)
    at = torch.stack([at[:, axis].clamp(0, grid.lattice.shape[axis] - 1) for axis in (0, 1)], 1)
    t1_s, t2_s = (
        float(lowest.min()) * torch.exp(at[:, axis] * log_step) for axis, lowest in enumerate((grid.t1_s, grid.t2_s))
    )
    found = match.pd != 0
    pd = torch.where(found, pd, 0)
    shift = (at - position[atom][:, :2]) * log_step
    signal = atoms[atom] + shift[:, :1] * slopes[0][atom] + shift[:, 1:] * slopes[1][atom]
    return Parameters(
        torch.where(found, t1_s, grid.t1_s[match.atom]),
        torch.where(found, torch.minimum(t1_s, t2_s), grid.t2_s[match.atom]),
        grid.b1[match.atom],
        pd,
        match.fit,
        pd[:, None] * signal,
    )


def _linear_fit(data: Tensor, value: Tensor, slope_1: Tensor, slope_2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return u, v and the complex PD that fit value + u slope_1 + v slope_2 to the data, least squares in the real."""
    inner = (value.conj() * data).sum(1)
    phase = inner / inner.abs().clamp_min(torch.finfo(value.dtype).tiny)
    turned = data * phase.conj()[:, None]
    columns = torch.stack([value, slope_1, slope_2], 2)
    if columns.is_complex():
        columns = torch.view_as_real(columns).transpose(2, 3).flatten(1, 2)
        turned = torch.view_as_real(turned).flatten(1)
    else:
        turned = turned.real
    scale = columns.norm(dim=1, keepdim=True).clamp_min(torch.finfo(columns.dtype).tiny)
    columns = columns / scale
    gram = columns.mT @ columns
    gram = gram + _DAMPING * torch.eye(3, dtype=gram.dtype, device=gram.device)
    solved = torch.linalg.solve(gram, columns.mT @ turned[:, :, None])[..., 0] / scale[:, 0]
    rho = solved[:, 0].clamp_min(torch.finfo(solved.dtype).tiny)
    return solved[:, 1] / rho, solved[:, 2] / rho, rho * phase


def _positions(grid: AtomGrid) -> Tensor:
    """Return the place of each atom on the lattice (atoms, 3)."""
    points = (grid.lattice >= 0).nonzero()
    order = torch.argsort(grid.lattice[tuple(points.T)])
    return points[order].to(grid.t1_s.dtype)


def lattice_slopes(grid: AtomGrid, atoms: Tensor) -> tuple[Tensor, Tensor]:
    """Return the derivatives of the atoms by log T1 and log T2, from both neighbours or the one there is."""
    slopes = []
    for axis in (0, 1):
        before, after = (_neighbour(grid, axis, shift) for shift in (-1, 1))
        own = torch.arange(len(atoms), device=atoms.device)
        n_steps = ((before != own).int() + (after != own).int()).clamp_min(1)
        slopes.append((atoms[after] - atoms[before]) / (n_steps[:, None] * math.log1p(grid.step)))
    return slopes[0], slopes[1]


def _neighbour(grid: AtomGrid, axis: int, shift: int) -> Tensor:
    """Return the atom that is `shift`, 1 or -1, steps away along an axis of the lattice; itself where none is."""
    n = grid.lattice.shape[axis]
    moved = torch.full_like(grid.lattice, -1)
    moved.narrow(axis, max(-shift, 0), n - 1).copy_(grid.lattice.narrow(axis, max(shift, 0), n - 1))
    there = grid.lattice >= 0
    neighbour = grid.lattice.new_empty(grid.n_atoms)
    neighbour[grid.lattice[there]] = torch.where(moved[there] >= 0, moved[there], grid.lattice[there])
    return neighbour


def _nearest(grid: AtomGrid, at: Tensor, b1: Tensor, instead: Tensor) -> Tensor:
    """Return the atom at the lattice point nearest to `at` (voxels, 2); `instead` where there is none."""
    first, second = (at[:, axis].round().long().clamp(0, grid.lattice.shape[axis] - 1) for axis in (0, 1))
    found = grid.lattice[first, second, b1.long()]
    return torch.where(found >= 0, found, instead)
