"""Affine registration of two volumes in world millimetres, by mutual information."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from torch import Tensor

from mrcore.data.grid import Grid, Triple, to_world
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError

Dof = Literal[6, 9, 12]
Matrix = NDArray[np.float64]

_POINTS_OF_A_GUESS = 1000
_SAME_BASIN_MM = 15.0  # starts that are nearer to one another end in the same place
_RADIUS_MM = 70.0  # of a head: a rotation by 1 / 70 moves its surface by 1 mm


@dataclass(frozen=True, eq=False)
class Registration:
    """How to lay `moving` over `fixed`.

    `motion` (4 x 4, world mm) takes a point of the moving object to its place in the fixed one, as
    `ResampleOp` expects. `similarity` is Linfoot's coefficient sqrt(1 - exp(-2 MI)): 0 for independent
    images, 1 for a function of one another. `history` is the similarity after each step.
    """

    motion: Matrix
    similarity: float
    converged: bool
    n_iter: int
    history: tuple[float, ...]
    message: str


@dataclass(frozen=True)
class RegisterSettings:
    """Settings of `register`.

    `dof` 6 is rigid, 9 adds a scale per axis, 12 shears. `levels_mm` are the voxel sizes, coarse to fine. `n_points`
    bounds the number of points compared at a level, `n_bins` the grey levels of the joint histogram; the `n_starts`
    likeliest guesses are refined at the coarsest level. `scale_sd` is the spread expected of log scales and shears
    about the start.
    """

    dof: Dof = 12
    levels_mm: tuple[float, ...] = (8.0, 4.0)
    n_steps: int = 60
    n_points: int = 40_000
    n_bins: int = 32
    n_starts: int = 3
    scale_sd: float = 0.2

    def __post_init__(self) -> None:
        if self.dof not in (6, 9, 12):
            raise BadInputError(f"dof must be 6, 9 or 12, got {self.dof}")
        if not self.levels_mm or min(self.levels_mm) <= 0 or self.n_steps < 1 or self.n_bins < 4 or self.scale_sd <= 0:
            raise BadInputError(
                "registration needs positive levels_mm and scale_sd, n_steps of at least 1, n_bins of at least 4"
            )


@dataclass(frozen=True, eq=False)
class _Level:
    """One resolution: points (N, 3) of the fixed image about `centre`, their bin weights, and the moving image."""

    points: Tensor
    fixed_bins: Tensor
    moving: Tensor
    to_voxel: Tensor
    centre: Tensor


@dataclass(frozen=True, eq=False)
class _Climb:
    """Where an optimisation ended: best `parameters` on top of `base`, its `loss`, and how it went."""

    parameters: Tensor
    base: Tensor
    loss: float
    settled: bool
    history: tuple[float, ...]


def register(
    moving: Volume,
    fixed: Volume,
    settings: RegisterSettings | None = None,
    *,
    fixed_mask: Tensor | None = None,
    starts: Sequence[Matrix] = (),
) -> Registration:
    """Find the affine motion that lays `moving` over `fixed`; contrasts may differ.

    Only points of `fixed_mask` (bool, on the fixed grid) are compared where it is given. `starts` are guesses of the
    motion, of which the likeliest is refined; without any, the centres of intensity are laid over one another.
    Deterministic. Parameters are regularised weakly towards scale 1 and no shear.

    Raises:
        BadInputError: complex or constant images, or an empty mask.
    """
    settings = settings or RegisterSettings()
    for volume, what in ((moving, "moving"), (fixed, "fixed")):
        if volume.data.is_complex() or float(volume.data.max()) <= float(volume.data.min()):
            raise BadInputError(f"registration needs real images that are not constant; the {what} image is not")
    weight = Volume(torch.ones_like(fixed.data) if fixed_mask is None else fixed_mask.to(fixed.data.dtype), fixed.grid)
    if not bool((weight.data > 0).any()):
        raise BadInputError("the mask of the fixed image is empty; there is nothing to register")
    guesses = [np.linalg.inv(start) for start in starts] or [_centred(moving, fixed, weight.data)]
    coarsest = _level(moving, fixed, weight, settings.levels_mm[0], settings)
    climbs = [
        _climb(coarsest, torch.zeros(12), guess, settings, rate=settings.levels_mm[0] / 4)
        for guess in _best(coarsest, [torch.from_numpy(g).float() for g in guesses], settings)
    ]
    climb = min(climbs, key=lambda c: c.loss)
    history = list(climb.history)
    for level_mm in settings.levels_mm[1:]:
        level = _level(moving, fixed, weight, level_mm, settings)
        climb = _climb(level, climb.parameters, climb.base, settings, rate=level_mm / 8)
        history += climb.history
    pull = (climb.base @ _affine(climb.parameters, coarsest.centre)).double().numpy()
    motion = np.linalg.inv(pull)
    message = f"{settings.dof} parameters at {settings.levels_mm[-1]:g} mm, similarity {history[-1]:.3f}"
    return Registration(motion, history[-1], climb.settled, len(history), tuple(history), message)


def likeliest(
    moving: Volume, fixed: Volume, settings: RegisterSettings, starts: Sequence[Matrix], *, fixed_mask: Tensor
) -> list[Matrix]:
    """Return the `n_starts` guesses of the motion that fit best as they are, no two of which nearly agree."""
    level = _level(moving, fixed, Volume(fixed_mask.to(fixed.data.dtype), fixed.grid), settings.levels_mm[0], settings)
    step = max(1, level.points.shape[0] // _POINTS_OF_A_GUESS)
    few = replace(level, points=level.points[::step], fixed_bins=level.fixed_bins[::step])
    pulls = [torch.from_numpy(np.linalg.inv(start)).float() for start in starts]
    with torch.no_grad():
        scores = [float(_information(few, pull, settings.n_bins)) for pull in pulls]
    found: list[int] = []
    for k in (int(i) for i in np.argsort(scores)[::-1]):
        if all(_distance_mm(few.points, pulls[k], pulls[other]) > _SAME_BASIN_MM for other in found):
            found.append(k)
        if len(found) == settings.n_starts:
            break
    return [starts[k] for k in found]


def similarity_at(
    motion: Matrix, moving: Volume, fixed: Volume, settings: RegisterSettings, fixed_mask: Tensor | None = None
) -> float:
    """Return the similarity (0 to 1, see `Registration`) under a given motion at the finest level."""
    weight = torch.ones_like(fixed.data) if fixed_mask is None else fixed_mask.to(fixed.data.dtype)
    level = _level(moving, fixed, Volume(weight, fixed.grid), settings.levels_mm[-1], settings)
    pull = torch.from_numpy(np.linalg.inv(motion)).float()
    return _linfoot(float(_information(level, pull, settings.n_bins)))


def block_mean(volume: Volume, level_mm: float) -> Volume:
    """Return the volume averaged over blocks of about `level_mm`; an incomplete block at the end is left out."""
    factors = [
        max(1, min(n, round(level_mm / s))) for n, s in zip(volume.grid.shape, volume.grid.spacing_mm, strict=True)
    ]
    data = nnf.avg_pool3d(volume.data[None, None].float(), factors)[0, 0]
    affine = volume.grid.affine.copy()
    affine[:3, 3] = to_world(volume.grid, np.array([(f - 1) / 2 for f in factors]))
    affine[:3, :3] *= np.array(factors)
    shape = (int(data.shape[0]), int(data.shape[1]), int(data.shape[2]))
    return Volume(data, Grid(shape, affine))


def rotation(angles_rad: Triple) -> Matrix:
    """Return the rotation (4 x 4) about the world axes x, then y, then z."""
    out = np.eye(4)
    for axis, angle in enumerate(angles_rad):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(4)
        step[a, a] = step[b, b] = math.cos(angle)
        step[a, b], step[b, a] = -math.sin(angle), math.sin(angle)
        out = step @ out
    return out


def _climb(level: _Level, start: Tensor, base: Tensor, settings: RegisterSettings, rate: float) -> _Climb:
    """Climb by Adam with a falling step; parameters are in mm at the surface of a head."""
    free = torch.zeros(12)
    free[: settings.dof] = 1
    parameters = start.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([parameters], lr=rate, betas=(0.8, 0.95))
    history: list[float] = []
    best, best_loss = start.clone(), math.inf
    for step in range(settings.n_steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / settings.n_steps)) + 0.01
        optimiser.zero_grad()
        information = _information(level, base @ _affine(parameters, level.centre), settings.n_bins)
        loss = _prior(parameters, settings.scale_sd) - information
        loss.backward()  # type: ignore[no-untyped-call]
        if float(loss.detach()) < best_loss:
            best, best_loss = parameters.detach().clone(), float(loss.detach())
        if parameters.grad is not None:
            parameters.grad.mul_(free)
        optimiser.step()
        history.append(_linfoot(float(information.detach())))
    # Still moving by more than a tenth of a voxel between the best step and the last: not settled.
    settled = float((best - parameters.detach()).abs().max()) < 0.4 * rate
    return _Climb(best, base, best_loss, settled, tuple(history))


def _prior(parameters: Tensor, scale_sd: float) -> Tensor:
    """Return the penalty in nats of log scales and shears away from the start."""
    return 0.05 * ((parameters[6:12] / (_RADIUS_MM * scale_sd)) ** 2).sum()


def _affine(parameters: Tensor, centre: Tensor) -> Tensor:
    """Return the 4 x 4 matrix of 12 parameters (shift, rotation, log scale, shear) about `centre`."""
    shift, angle = parameters[:3], parameters[3:6] / _RADIUS_MM
    scale, shear = (parameters[6:9] / _RADIUS_MM).exp(), parameters[9:12] / _RADIUS_MM
    zero = torch.zeros(())
    skew = torch.stack([
        torch.stack([zero, -angle[2], angle[1]]),
        torch.stack([angle[2], zero, -angle[0]]),
        torch.stack([-angle[1], angle[0], zero]),
    ])  # fmt: skip
    upper = torch.stack([
        torch.stack([scale[0], shear[0], shear[1]]),
        torch.stack([zero, scale[1], shear[2]]),
        torch.stack([zero, zero, scale[2]]),
    ])  # fmt: skip
    linear = torch.matrix_exp(skew) @ upper
    offset = centre + shift - linear @ centre
    top = torch.cat([linear, offset[:, None]], 1)
    return torch.cat([top, torch.tensor([[0.0, 0.0, 0.0, 1.0]])])


def _information(level: _Level, pull: Tensor, n_bins: int) -> Tensor:
    """Return the mutual information (nats) of the fixed points and the moving image there."""
    voxel = level.points @ (level.to_voxel @ pull)[:3, :3].T + (level.to_voxel @ pull)[:3, 3]
    size = torch.tensor(level.moving.shape, dtype=voxel.dtype)
    place = (2 * voxel / (size - 1).clamp_min(1) - 1).flip(-1)
    # Points outside the moving image say nothing; that they are few is rewarded.
    inside = (0.5 * size - (voxel - 0.5 * (size - 1)).abs()).clamp(0, 1).amin(1)
    values = nnf.grid_sample(
        level.moving[None, None], place[None, None, None], align_corners=True, padding_mode="border"
    )[0, 0, 0, 0]
    joint = level.fixed_bins.T @ (_bins(values, n_bins) * inside[:, None]) / inside.sum().clamp_min(1.0)
    outer = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return (joint * ((joint + 1e-9) / (outer + 1e-9)).log()).sum() * inside.mean()


def _bins(values: Tensor, n_bins: int) -> Tensor:
    """Return smooth memberships (N, B) of values in [0, 1] in grey levels."""
    centre = torch.arange(n_bins, dtype=values.dtype)
    weight = (-0.5 * (values.clamp(0, 1)[:, None] * (n_bins - 1) - centre) ** 2).exp()
    return weight / weight.sum(1, keepdim=True)


def _linfoot(information: float) -> float:
    return math.sqrt(1 - math.exp(-2 * max(0.0, information)))


def _level(moving: Volume, fixed: Volume, weight: Volume, level_mm: float, settings: RegisterSettings) -> _Level:
    coarse, inside = block_mean(fixed, level_mm), block_mean(weight, level_mm)
    index = torch.nonzero(inside.data > 0.5)
    if index.shape[0] == 0:
        index = torch.nonzero(inside.data == inside.data.max())
    index = index[:: max(1, math.ceil(index.shape[0] / settings.n_points))]
    values = _unit_range(coarse.data)[index[:, 0], index[:, 1], index[:, 2]]
    points = torch.from_numpy(to_world(coarse.grid, index.numpy())).float()
    other = block_mean(moving, level_mm)
    to_voxel = torch.from_numpy(np.linalg.inv(other.grid.affine)).float()
    bins = _bins(values, settings.n_bins)
    return _Level(points, bins, _unit_range(other.data), to_voxel, points.mean(0))


def _unit_range(data: Tensor) -> Tensor:
    """Map values to ranks among the positive ones, half way towards a linear scale; background and below to 0.

    Mutual information does not see the map; the bins do: bright fat would leave a brain in few of them.
    """
    positive = data[data > 0.02 * data.max()]
    if positive.numel() == 0:
        positive = (data - data.min()).flatten()
    ordered = positive[:: max(1, positive.numel() // 100_000)].sort().values
    knots = ordered[torch.linspace(0, 0.995 * (ordered.numel() - 1), 64).long()]
    rank = torch.searchsorted(knots, data.contiguous()).float() / 64
    return 0.5 * rank + 0.5 * (data / knots[-1]).clamp(0, 1)


def _best(level: _Level, guesses: list[Tensor], settings: RegisterSettings) -> list[Tensor]:
    with torch.no_grad():
        scores = [float(_information(level, guess, settings.n_bins)) for guess in guesses]
    return [guesses[int(i)] for i in np.argsort(scores)[::-1][: settings.n_starts]]


def _distance_mm(points: Tensor, a: Tensor, b: Tensor) -> float:
    """Return the mean distance between the places to which two motions (4 x 4) take points (N, 3)."""
    return float((points @ (a - b)[:3, :3].T + (a - b)[:3, 3]).norm(dim=1).mean())


def _centred(moving: Volume, fixed: Volume, weight: Tensor) -> Matrix:
    out = np.eye(4)
    out[:3, 3] = _centroid(moving, moving.data) - _centroid(fixed, fixed.data * weight)
    return out


def _centroid(volume: Volume, data: Tensor) -> NDArray[np.float64]:
    positive = data.clamp_min(0).double()
    total = positive.sum().clamp_min(1e-12)
    voxel = [
        float((positive.sum(dim=tuple(b for b in range(3) if b != a)) * torch.arange(n)).sum() / total)
        for a, n in enumerate(data.shape)
    ]
    return to_world(volume.grid, np.array(voxel))
