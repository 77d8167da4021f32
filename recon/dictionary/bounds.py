"""How well T1 and T2 can be known at all: the Cramer-Rao bound of a fingerprint."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.errors import BadInputError
from recon.dictionary.dictionary import Dictionary
from recon.dictionary.refine import lattice_slopes


@dataclass(frozen=True, eq=False)
class Bounds:
    """Least standard deviations of unbiased estimates, each (voxels,): `t1_s`, `t2_s` and `pd`; inf where none is."""

    t1_s: Tensor
    t2_s: Tensor
    pd: Tensor


def cramer_rao(dictionary: Dictionary, atom: Tensor, pd: Tensor, noise_sd: float | Tensor) -> Bounds:
    """Return the Cramer-Rao bounds at the atoms `atom` (voxels,) scaled by `pd` (voxels,).

    `noise_sd`: of white noise in each real channel of the coefficients, one number or (voxels,). B1 counts as known,
    the phase of PD as unknown. With J = [B, |pd| dB/dT1, |pd| dB/dT2] the covariance is noise_sd^2 (J^T J)^-1, the real
    part being taken and, for complex atoms, what the unknown phase explains removed. Zhao et al., IEEE TMI 2019;38:844.

    Raises:
        BadInputError: noise that is not positive.
    """
    sd = torch.as_tensor(noise_sd, dtype=dictionary.grid.t1_s.dtype, device=dictionary.atoms.device)
    if not bool((sd > 0).all()):
        raise BadInputError("noise_sd must be above 0")
    grid, value = dictionary.grid, dictionary.atoms
    slope_1, slope_2 = lattice_slopes(grid, value)
    jacobian = torch.stack([value, slope_1, slope_2], 2)
    gram = (jacobian.mH @ jacobian).to(torch.promote_types(value.dtype, torch.float64))
    if gram.is_complex():
        by_phase = gram[:, 0].imag
        gram = gram.real - by_phase[:, :, None] * by_phase[:, None] / gram[:, 0, 0].real[:, None, None]
    scale = gram.diagonal(dim1=1, dim2=2).sqrt().clamp_min(torch.finfo(gram.dtype).tiny)
    inverse, failed = torch.linalg.inv_ex(gram / scale[:, :, None] / scale[:, None])
    spread = inverse.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt() / scale
    spread = torch.where(failed[:, None] == 0, spread, torch.inf).to(sd.dtype)[atom]
    relative = sd / pd.abs().clamp_min(torch.finfo(sd.dtype).tiny)
    return Bounds(
        grid.t1_s[atom] * spread[:, 1] * relative, grid.t2_s[atom] * spread[:, 2] * relative, spread[:, 0] * sd
    )
