"""Matching of voxels to the atoms of a dictionary, alone or together with weighted images; exact."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.errors import BadInputError
from recon.dictionary.match_index import MatchIndex

_BLOCK_VOXELS = 32_768


@dataclass(frozen=True, eq=False)
class Match:
    """Best atom of each voxel: its number `atom`, the complex `pd` that scales it, and `fit`, 0 to 1, each (voxels,).

    `fit` is the cosine of the angle between data and atom: the data's norm times sqrt(1 - fit^2) is left over.
    """

    atom: Tensor
    pd: Tensor
    fit: Tensor


def match(index: MatchIndex, coefficients: Tensor, images: Tensor | None = None) -> Match:
    """Return the atom and PD that come closest to each voxel: min over k, rho of |x - rho B_k|^2.

    `coefficients` x (voxels, length), complex or real. With `images` s (voxels, contrasts), real, the minimum is that
    of |x - rho B_k|^2 + weight |s - |rho| w_k|^2: the best k has the largest (|<B_k, x>| + weight <w_k, s>) /
    sqrt(|B_k|^2 + weight |w_k|^2), and |rho| is never negative.

    Exact: a group of atoms is passed over only where the angle to its centre, less its radius, already exceeds the
    angle to the best atom so far. Voxels without signal get atom 0 and PD 0.

    Raises:
        BadInputError: data of another length than the atoms, images without or of other number than the index has,
            values that are not finite.
    """
    n_contrasts = index.weighted.shape[-1]
    given = 0 if images is None else images.shape[-1]
    if coefficients.ndim != 2 or coefficients.shape[1] != index.atoms.shape[-1] or given != n_contrasts:
        raise BadInputError(
            f"the index holds atoms of length {index.atoms.shape[-1]} with {n_contrasts} weighted images, "
            f"the data have the shape {tuple(coefficients.shape)} with {given}"
        )
    if images is None:
        images = index.weighted.new_zeros(len(coefficients), 0)
    if len(images) != len(coefficients):
        raise BadInputError(f"{len(coefficients)} voxels came with images of {len(images)}")
    if not bool(coefficients.abs().sum().isfinite()) or not bool(images.sum().isfinite()):
        raise BadInputError("the data to match must be finite")
    real = index.weighted.dtype
    coefficients = coefficients.to(real.to_complex())
    images = images.to(real) * math.sqrt(index.weight)
    parts = [
        _match_block(index, *block)
        for block in zip(torch.split(coefficients, _BLOCK_VOXELS), torch.split(images, _BLOCK_VOXELS), strict=True)
    ]
    return Match(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _match_block(index: MatchIndex, data: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    tiny = torch.finfo(images.dtype).tiny
    length = (data.abs().square().sum(1) + images.square().sum(1)).sqrt().clamp_min(tiny)
    to_centre = _scores(index.centre, index.centre_weighted, data, images)  # (groups, voxels)
    nearest = to_centre.argmax(0)
    best, place = torch.full_like(length, -math.inf), torch.zeros_like(nearest)
    groups, voxels = nearest.sort(stable=True)
    _improve(index, data, images, groups, voxels, best, place)
    # an atom of the group can score length cos(angle to the centre - radius) at most, which is to exceed the best
    fit = (best / length).clamp(0, 1)
    least = torch.outer(index.radius_cos, fit * length)
    least.addr_(index.radius_sin, (1 - fit.square()).sqrt_() * length, alpha=-1)
    wanted = (to_centre >= least).scatter_(0, nearest[None], False)  # the nearest is done
    groups, voxels = wanted.nonzero(as_tuple=True)
    _improve(index, data, images, groups, voxels, best, place)
    best = best.clamp_min(0)
    atom = index.place.reshape(-1)[place]
    inner = (index.atoms.flatten(0, 1)[place].conj() * data).sum(1)
    found = best > 0
    return torch.where(found, atom, 0), inner / inner.abs().clamp_min(tiny) * best / index.norms[atom], best / length


def _improve(
    index: MatchIndex, data: Tensor, images: Tensor, groups: Tensor, voxels: Tensor, best: Tensor, place: Tensor
) -> None:
    """Look at pairs of group and voxel, sorted by group; put better scores into `best`, their places into `place`."""
    counts = torch.bincount(groups, minlength=len(index.radius)).tolist()
    for group, here in enumerate(voxels.split_with_sizes(counts)):
        if not len(here):
            continue
        scores = _scores(index.atoms[group], index.weighted[group], data[here], images[here])
        highest = scores.amax(0)
        better = (highest > best[here]).nonzero()[:, 0]
        voxel = here[better]
        best[voxel] = highest[better]
        place[voxel] = group * index.place.shape[1] + scores[:, better].argmax(0)


def _scores(atoms: Tensor, weighted: Tensor, data: Tensor, images: Tensor) -> Tensor:
    """Return |<B_k, x>| + <w_k, s> (atoms, voxels) of unit atoms; real atoms need two real products."""
    if atoms.is_complex():
        size = (atoms.conj() @ data.mT).abs()
    else:
        real, imaginary = (atoms @ part.contiguous().mT for part in (data.real, data.imag))
        size = real.square_().addcmul_(imaginary, imaginary).sqrt_()
    return size.addmm_(weighted, images.mT) if images.shape[1] else size
