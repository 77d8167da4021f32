"""Sensitivities of loop coils around an object, by the law of Biot and Savart: for simulation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mrcore.data.grid import Grid
from mrcore.errors import BadInputError

_SEGMENTS = 24  # of a loop
_OVERLAP = 1.1  # of neighbouring loops
_VOXELS = 50_000  # worked on at once


def loop_coil_maps(grid: Grid, n_coils: int = 8, distance: float = 0.65) -> Tensor:
    """Return maps (C, X, Y, Z) complex64 of loops in a ring about the third axis.

    Their root sum of squares is 1 at the origin, voxel `n // 2`. The loops face the axis at `distance` times the
    larger in-plane field of view and nearly touch; the received field is Bx - i By of unit current.

    Raises:
        BadInputError: no coils, or loops inside the field of view.
    """
    if n_coils < 1 or distance <= 0.5:
        raise BadInputError(f"expected a coil and a distance above 0.5 fields of view, got {n_coils} and {distance}")
    axes = [(torch.arange(n) - n // 2) * step for n, step in zip(grid.shape, grid.spacing_mm, strict=True)]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).float()
    ring = distance * max(grid.fov_mm[:2])
    fields = []
    for angle in torch.arange(n_coils) * (2 * math.pi / n_coils):
        corners = _loop(float(angle), ring, _OVERLAP * ring * math.sin(math.pi / max(3, n_coils)))
        fields.append(torch.cat([_field(part, corners) for part in torch.split(place, _VOXELS)]))
    origin = _field(torch.zeros((1, 3)), _loop(0.0, ring, _OVERLAP * ring * math.sin(math.pi / max(3, n_coils))))
    scale = float(origin.abs()) * math.sqrt(n_coils)  # all loops are alike at the origin
    return torch.stack(fields).reshape(n_coils, *grid.shape) / scale


def _loop(angle: float, ring: float, radius: float) -> Tensor:
    """Return the corners (segments + 1, 3) of a loop whose axis points at the origin."""
    turn = torch.arange(_SEGMENTS + 1) * (2 * math.pi / _SEGMENTS)
    outward, aside = (
        torch.tensor([math.cos(angle), math.sin(angle), 0]),
        torch.tensor([-math.sin(angle), math.cos(angle), 0]),
    )
    upward = torch.tensor([0.0, 0.0, 1.0])
    return ring * outward + radius * (turn.cos()[:, None] * aside + turn.sin()[:, None] * upward)


def _field(place: Tensor, corners: Tensor) -> Tensor:
    """Return Bx - i By (voxels,) of a current through `corners`, up to a factor."""
    middle, element = (corners[1:] + corners[:-1]) / 2, torch.diff(corners, dim=0)
    away = place[:, None] - middle
    b = (torch.linalg.cross(element.expand_as(away), away) / away.norm(dim=-1, keepdim=True) ** 3).sum(1)
    return torch.complex(b[:, 0], -b[:, 1])
