"""Atoms sorted into small groups of like direction, so that most of them need not be looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mrcore.data.brief import Brief
from mrcore.errors import BadInputError

_GROUP_ATOMS = 256
_ROUNDING_RAD = 1.5e-3  # an angle taken from a single-precision product near 1 is known to about 5e-4 rad


@dataclass(frozen=True, eq=False, repr=False)
class MatchIndex(Brief):
    """Atoms of unit norm in groups: `atoms` (groups, members, length) with `weighted` (groups, members, contrasts).

    An atom and its weighted images, the latter times the root of `weight`, are one vector; `norms` (atoms,) are the
    lengths before scaling, in the order of the dictionary. `place` (groups, members) is the number of each in the
    dictionary. Groups have a `centre` and `centre_weighted` of unit norm and a `radius` (rad): no member lies at a
    larger angle from it, rounding allowed for.
    """

    atoms: Tensor
    weighted: Tensor
    place: Tensor
    centre: Tensor
    centre_weighted: Tensor
    radius: Tensor
    norms: Tensor
    weight: float

    @property
    def radius_cos(self) -> Tensor:
        """Cosine of the radius; -1 from a quarter turn on, so that such a group is always looked at."""
        return torch.where(self.radius < math.pi / 2, torch.cos(self.radius), -1.0)

    @property
    def radius_sin(self) -> Tensor:
        """Sine of the radius, 1 from a quarter turn on."""
        return torch.where(self.radius < math.pi / 2, torch.sin(self.radius), 1.0)

    def to(self, device: torch.device | str) -> MatchIndex:
        """Return the index on a device."""
        names = ("atoms", "weighted", "place", "centre", "centre_weighted", "radius", "norms")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def match_index(atoms: Tensor, weighted: Tensor | None = None, weight: float = 1.0) -> MatchIndex:
    """Return the index of `atoms` (atoms, length), real or complex, per unit of PD.

    `weighted` (atoms, contrasts): the weighted images of each atom per unit of PD, real, for `match` with images, whose
    misfit counts `weight` times that of the coefficients. Groups are made by halving along the direction of most
    spread until they have at most 256 atoms.

    Raises:
        BadInputError: unequal numbers of atoms, a weight that is not positive.
    """
    if weighted is None:
        weighted = atoms.new_zeros(len(atoms), 0, dtype=_real(atoms))
    if len(weighted) != len(atoms) or weighted.is_complex():
        raise BadInputError(f"{len(atoms)} atoms need as many real weighted signals, got {tuple(weighted.shape)}")
    if not weight > 0:
        raise BadInputError(f"the weight of the images must be above 0, got {weight:g}")
    together = torch.cat([_as_real(atoms), weighted * math.sqrt(weight)], 1)
    norms = together.norm(dim=1)
    unit = together / norms[:, None]
    n_groups = 2 ** max(0, math.ceil(math.log2(len(unit) / _GROUP_ATOMS)))
    place = _halved(unit, n_groups)
    members = unit[place]
    centre = torch.nn.functional.normalize(members.mean(1), dim=-1)
    chord = (members - centre[:, None]).norm(dim=-1).amax(1)
    radius = 2 * torch.asin((chord / 2).clamp_max(1)) + _ROUNDING_RAD
    split = together.shape[1] - weighted.shape[1]
    parts = [_as_complex(part[..., :split], atoms).contiguous() for part in (members, centre)]
    return MatchIndex(
        parts[0], members[..., split:].contiguous(), place, parts[1], centre[..., split:], radius, norms, weight
    )


def _halved(unit: Tensor, n_groups: int) -> Tensor:
    """Return the members (groups, size) of groups of equal size; the last atoms fill up groups that lack one."""
    size = math.ceil(len(unit) / n_groups)
    filled = torch.cat([torch.arange(len(unit)), torch.full((n_groups * size - len(unit),), len(unit) - 1)])
    groups = filled[None].to(unit.device)
    while len(groups) < n_groups:
        points = unit[groups]
        points = points - points.mean(1, keepdim=True)
        direction = torch.linalg.eigh(points.mT @ points).eigenvectors[..., -1:]
        order = (points @ direction)[..., 0].argsort(1)
        groups = groups.gather(1, order).reshape(2 * len(groups), -1)
    return groups


def _real(values: Tensor) -> torch.dtype:
    return values.dtype.to_real() if values.is_complex() else values.dtype


def _as_real(values: Tensor) -> Tensor:
    return torch.view_as_real(values).flatten(1) if values.is_complex() else values


def _as_complex(values: Tensor, like: Tensor) -> Tensor:
    if not like.is_complex():
        return values
    return torch.view_as_complex(values.reshape(*values.shape[:-1], -1, 2).contiguous())
