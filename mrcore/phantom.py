"""Digital head from analytic shapes: folded cortex, ventricles, deep grey matter, partial volumes; no data needed.

Shapes are signed distances in mm. The share of a voxel inside a shape is a linear ramp of its distance over one
voxel, so sheets thinner than a voxel (sulci, cortex on coarse grids) get the right partial volume.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mrcore.data.acquisition import PulseSequence
from mrcore.data.brief import Brief
from mrcore.data.grid import Grid, directions, to_world
from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.random import seeded
from mrcore.signals.steady_state import sequence_signal, signal_of
from mrcore.signals.tissue import TISSUE_TABLE, Tissue, relaxation

SPGR_T1W = PulseSequence("T1w", tr_s=0.008, te_s=0.003, flip_deg=30.0)
"""Spoiled gradient echo whose WM : GM : CSF is about 1 : 0.78 : 0.31 at 3 T."""

_BRAIN_MM = (66.0, 82.0, 62.0)
_CSF_MM, _SKULL_MM, _SCALP_MM = 2.5, 6.0, 6.0
_DEEPEST_MM = 36.0  # no fold and no cortex below it, so that far voxels need no random field
# Centre and half axes in mm (right, anterior, superior) of one side; the other side is its mirror image.
_VENTRICLES = (((9, 4, 10), (5, 24, 9)), ((17, -26, 4), (6, 16, 7)), ((0, -6, -4), (2.5, 13, 9)))
_DEEP_GREY = (((11, -14, 0), (8, 13, 8)), ((27, 4, -2), (6, 17, 10)), ((16, 16, 2), (5, 10, 9)))


@dataclass(frozen=True, eq=False, repr=False)
class Phantom(Brief):
    """A digital head on one grid: what a scanner would see and what it is made of.

    `image` is the T1w image with WM at 1; `t1_s`, `t2_s` and `pd` (X, Y, Z) are means over the voxel weighted by
    tissue share, 0 where there is no signal. Scalp is in the image and the maps, not in `tissues`.
    """

    tissues: TissueMap
    image: Volume
    t1_s: Tensor
    t2_s: Tensor
    pd: Tensor

    @property
    def grid(self) -> Grid:
        """The grid that all maps share."""
        return self.tissues.grid

    @property
    def mask(self) -> Tensor:
        """Brain voxels, CSF included."""
        return self.tissues.mask


def head_grid(n: int = 64, fov_mm: float = 192.0) -> Grid:
    """Return a cube of n^3 voxels, RAS, centred on the world origin, that holds the whole head."""
    affine = np.diag([fov_mm / n] * 3 + [1.0])
    affine[:3, 3] = -fov_mm / n * (n - 1) / 2
    return Grid((n, n, n), affine)


def digital_head(
    grid: Grid | None = None,
    *,
    seed: int = 0,
    field_t: float = 3.0,
    skull: bool = False,
    texture: float = 0.0,
    cortex_mm: float | None = None,
    sequence: PulseSequence = SPGR_T1W,
    table: Mapping[str, Tissue] = TISSUE_TABLE,
) -> Phantom:
    """Build the head on any grid (default: 64^3 of 3 mm), upright in the world, centred in the field of view.

    A field of view too small for an adult head gets a smaller one. The cortex is 3 mm thick, but at least 1.6
    voxels (`cortex_mm` sets it). `texture` is the sd of a smooth relative modulation of the image (0.05 is strong).
    `seed` decides folds and texture; the same seed gives the same head on every grid.

    Raises:
        BadInputError: a texture outside [0, 0.5], or a field that the tissue table does not cover.
    """
    if not 0 <= texture <= 0.5:
        raise BadInputError(f"texture is a relative sd between 0 and 0.5, got {texture}")
    grid = head_grid() if grid is None else grid
    scale = _scale(grid, skull)
    voxel = float(np.prod(grid.spacing_mm)) ** (1 / 3)
    position = _positions(grid) / scale
    hull = _ellipsoid(position, (0.0, 0.0, 0.0), _BRAIN_MM)
    thickness = max(3.0, 1.6 * voxel / scale) if cortex_mm is None else cortex_mm / scale
    tissues = TissueMap(_tissues(position, hull, thickness, voxel / scale, seed), TISSUES, grid)
    scalp = torch.zeros(grid.shape)
    if skull:
        inner = hull - _CSF_MM - _SKULL_MM
        scalp = (_inside(inner - _SCALP_MM, voxel / scale) - _inside(inner, voxel / scale)) * ~tissues.mask
    names = (*TISSUES, "FAT") if skull else TISSUES
    shares = torch.cat([tissues.prob, scalp[None]])[: len(names)]
    values = [relaxation(name, field_t, table) for name in names]
    white = signal_of(sequence, relaxation("WM", field_t, table))
    signals = torch.stack([sequence_signal(sequence, v.pd, v.t1_s, v.t2_s) for v in values]) / white
    image = _mix(signals.float(), shares)
    if texture:
        image = image * (1 + texture * _waves(position, 14.0, 24, seed, "texture")[0]).clamp_min(0)
    total = shares.sum(0).clamp_min(1e-6)
    maps = [_mix(torch.tensor([getattr(v, quantity) for v in values]), shares) / total for quantity in ("t1_s", "t2_s")]
    pd = _mix(torch.tensor([v.pd for v in values]), shares)
    meta = {"Phantom": "mrcore.phantom.digital_head", "Seed": seed, "MagneticFieldStrength": field_t}
    return Phantom(tissues, Volume(image, grid, meta), maps[0], maps[1], pd)


def _tissues(position: Tensor, hull: Tensor, thickness: float, voxel: float, seed: int) -> Tensor:
    """Return (CSF, GM, WM) from the signed distance `hull` (negative inside the brain), all in head mm."""
    pial = torch.minimum(-hull, _sulci(position, hull, seed))
    brain, white = _inside(-pial, voxel), _inside(thickness - pial, voxel)
    deep = _union(position, _DEEP_GREY, voxel)
    fluid = _union(position, _VENTRICLES, voxel)
    white = white * (1 - deep)
    grey = brain - white
    prob = torch.stack([1 - brain + brain * fluid, grey * (1 - fluid), white * (1 - fluid)])
    return prob * (hull < _CSF_MM)


def _sulci(position: Tensor, hull: Tensor, seed: int) -> Tensor:
    """Return the distance from the folds: sheets on the zero set of a random field, and the midline fissure.

    The field is read where the ray from the centre meets the hull, so that folds stand upright on the surface.
    """
    fissure = torch.hypot(position[..., 0], (16.0 - position[..., 2]).clamp_min(0)) - 1.0
    near = (hull < _CSF_MM) & (hull > -_DEEPEST_MM)
    place, depth = position[near], -hull[near]
    radius = (place / torch.tensor(_BRAIN_MM)).norm(dim=-1)
    foot = place / radius[..., None]
    wave, gradient = _waves(foot, 25.0, 20, seed, "folds")
    upright = foot / foot.norm(dim=-1, keepdim=True)
    slope = (gradient - (gradient * upright).sum(-1, keepdim=True) * upright).norm(dim=-1)
    # Rays converge towards the centre, hence the factor radius; the floor keeps flat spots of the field from opening.
    aside = wave.abs() / (slope.square() + 0.15**2).sqrt() * radius
    bottom = 14.0 + 3.0 * _waves(foot, 50.0, 8, seed, "depth")[0]
    width = (1.0 - 0.04 * depth).clamp_min(0.35)
    folds = torch.hypot(aside, (depth - bottom).clamp_min(0)) - width
    out = fissure.clone()
    out[near] = torch.minimum(folds, fissure[near])
    return out


def _waves(position: Tensor, wavelength_mm: float, n_waves: int, seed: int, key: str) -> tuple[Tensor, Tensor]:
    """Return a smooth random field (...) of unit variance and its gradient (..., 3) in 1/mm."""
    generator = seeded(seed, f"phantom:{key}")
    direction = torch.randn((n_waves, 3), generator=generator)
    direction = direction / direction.norm(dim=1, keepdim=True)
    number = 2 * math.pi / wavelength_mm * (0.75 + 0.5 * torch.rand((n_waves, 1), generator=generator)) * direction
    offset = 2 * math.pi * torch.rand(n_waves, generator=generator)
    field = torch.zeros(position.shape[:-1])
    gradient = torch.zeros(position.shape)
    amplitude = math.sqrt(2 / n_waves)
    for k, shift in zip(number, offset, strict=True):
        phase = position @ k + shift
        field += amplitude * torch.cos(phase)
        gradient -= amplitude * torch.sin(phase)[..., None] * k
    return field, gradient


def _ellipsoid(position: Tensor, centre: tuple[float, ...], axes: tuple[float, ...]) -> Tensor:
    """Return the first-order signed distance to an ellipsoid, negative inside."""
    half = torch.tensor(axes)
    u = (position - torch.tensor(centre)) / half
    radius = u.norm(dim=-1)
    steepness = ((u / half).norm(dim=-1) / radius.clamp_min(1e-6)).clamp_min(1 / max(axes))
    out: Tensor = (radius - 1) / steepness
    return out


def _union(position: Tensor, shapes: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...], voxel: float) -> Tensor:
    """Return the share of each voxel in any of the mirrored ellipsoids."""
    mirrored = torch.cat([position[..., :1].abs(), position[..., 1:]], dim=-1)
    distance = [_ellipsoid(mirrored, centre, axes) for centre, axes in shapes]
    return _inside(torch.stack(distance).amin(0), voxel)


def _inside(distance: Tensor, voxel: float) -> Tensor:
    return (0.5 - distance / voxel).clamp(0, 1)


def _mix(values: Tensor, shares: Tensor) -> Tensor:
    return torch.einsum("t,txyz->xyz", values.to(shares.dtype), shares)


def _positions(grid: Grid) -> Tensor:
    """Return world positions in mm (X, Y, Z, 3) from the centre of the field of view."""
    index = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in grid.shape], indexing="ij"), -1)
    centre = to_world(grid, (np.array(grid.shape) - 1) / 2)
    matrix = torch.from_numpy(np.array(grid.affine[:3, :3], np.float32))
    return index @ matrix.T + torch.from_numpy((grid.affine[:3, 3] - centre).astype(np.float32))


def _scale(grid: Grid, skull: bool) -> float:
    """Return the factor, at most 1, by which the head is shrunk to leave 3 % of the field of view on each side."""
    half = np.array(_BRAIN_MM) + _CSF_MM + (_SKULL_MM + _SCALP_MM if skull else 0.0)
    support = np.linalg.norm(directions(grid) * half[:, None], axis=0)
    return float(min(1.0, (0.47 * np.array(grid.fov_mm) / support).min()))
