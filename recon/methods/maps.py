"""Maps of T1, T2, PD and B1 from coefficients, and what is known of their errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.data.brief import Brief
from mrcore.errors import BadInputError
from mrcore.noise import complex_noise
from mrcore.random import seeded
from recon.dictionary.bounds import Bounds, cramer_rao
from recon.dictionary.dictionary import Dictionary
from recon.dictionary.match_index import MatchIndex, match_index
from recon.dictionary.matching import Match, match
from recon.dictionary.refine import Parameters, refine
from recon.encoding.encoding import Encoding
from recon.methods.baselines import coefficient_scale

_SUPPORT_SHARE = 0.05


@dataclass(frozen=True, eq=False, repr=False)
class Maps(Brief):
    """Maps (X, Y, Z): `t1_s`, `t2_s`, complex `pd`, `b1` (None where the dictionary has one), all 0 outside `mask`.

    `fit`, 0 to 1, is the cosine of the angle between the coefficients of a voxel and its atom: sqrt(1 - fit^2) of their
    norm is not explained. `atom` is the number of the matched atom, from which T1 and T2 were refined; 0 outside.

    Raises:
        BadInputError: maps of unequal shapes, or not of three axes.
    """

    t1_s: Tensor
    t2_s: Tensor
    pd: Tensor
    b1: Tensor | None
    fit: Tensor
    atom: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        given = (self.t1_s, self.t2_s, self.pd, self.fit, self.atom, self.mask)
        shapes = {tuple(values.shape) for values in (*given, *(() if self.b1 is None else (self.b1,)))}
        if len(shapes) != 1 or self.t1_s.ndim != 3:
            raise BadInputError(f"maps need one shape (X, Y, Z), got {sorted(shapes)}")


def support(coefficients: Tensor, share: float = _SUPPORT_SHARE) -> Tensor:
    """Return where (X, Y, Z) the norm of the coefficients (K, X, Y, Z) exceeds `share` of its 99th percentile."""
    return coefficients.abs().square().sum(0).sqrt() > share * coefficient_scale(coefficients)


def maps_of(
    dictionary: Dictionary, coefficients: Tensor, mask: Tensor | None = None, index: MatchIndex | None = None
) -> Maps:
    """Return the maps of coefficients (K, X, Y, Z): matched exactly, then refined off the grid.

    `mask` (X, Y, Z) says which voxels count, by default the `support`; `index` is that of the dictionary's atoms, to be
    made once for many reconstructions.

    Raises:
        BadInputError: coefficients that do not fit the dictionary or the mask, or are not finite.
    """
    mask = support(coefficients) if mask is None else mask
    if mask.shape != coefficients.shape[1:] or mask.dtype != torch.bool:
        raise BadInputError(
            f"coefficients of shape {tuple(coefficients.shape)} need a mask of booleans of their last three axes, "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
    data = coefficients[:, mask].T
    found = match(match_index(dictionary.atoms) if index is None else index, data)
    return filled(mask, found, refine(dictionary, found, data), has_b1=dictionary.grid.lattice.shape[2] > 1)


def filled(mask: Tensor, found: Match, parameters: Parameters, *, has_b1: bool) -> Maps:
    """Return the maps of parameters (voxels,) that lie at the voxels of `mask` (X, Y, Z), in their order."""

    def fill(values: Tensor) -> Tensor:
        out = values.new_zeros(mask.shape)
        out[mask] = values
        return out

    p = parameters
    b1 = fill(p.b1) if has_b1 else None
    return Maps(fill(p.t1_s), fill(p.t2_s), fill(p.pd), b1, fill(p.fit), fill(found.atom), mask)


def coefficient_noise(
    encoding: Encoding, noise_sd: float, solve: Callable[[Tensor], Tensor], n_replicas: int = 4, seed: int = 0
) -> Tensor:
    """Return the sd (X, Y, Z) per real channel of the noise of the coefficients, one number for all K of a voxel.

    `solve`, from samples (C, N) to coefficients, must be linear; it is given draws of white noise of `noise_sd` per
    real channel of a sample, and no signal. Robson et al., MRM 2008;60:895. With n replicas the sd is known to
    1 / sqrt(4 K n).

    Raises:
        BadInputError: noise that is not positive, or no replicas.
    """
    if not noise_sd > 0 or n_replicas < 1:
        raise BadInputError(f"noise_sd must be above 0 and one replica is needed, got {noise_sd:g} and {n_replicas}")
    generator = seeded(seed, "recon.maps:replicas")
    dtype, device = encoding.weights.dtype, encoding.weights.device
    total = torch.zeros(())
    for _ in range(n_replicas):
        noise = complex_noise(encoding.operator.shape_out, noise_sd, generator, dtype=dtype, device=device)
        total = total.to(device) + solve(noise).abs().square().mean(0)
    return (total / (2 * n_replicas)).sqrt()


def map_bounds(dictionary: Dictionary, maps: Maps, noise_sd: Tensor) -> Bounds:
    """Return the Cramer-Rao bounds (X, Y, Z) of T1, T2 and PD, 0 outside the mask.

    `noise_sd` (X, Y, Z) is that of `coefficient_noise`. The bound holds thermal noise with its amplification by the
    undersampling, for estimates of each voxel by itself. It holds neither aliasing nor errors of the model (B1, motion,
    coil maps), nor what a prior gains by shrinking the noise or loses by bias.
    """
    bounds = cramer_rao(dictionary, maps.atom[maps.mask], maps.pd[maps.mask], noise_sd[maps.mask].clamp_min(1e-30))
    filled_in = []
    for values in (bounds.t1_s, bounds.t2_s, bounds.pd):
        image = values.new_zeros(maps.mask.shape)
        image[maps.mask] = values
        filled_in.append(image)
    return Bounds(*filled_in)
