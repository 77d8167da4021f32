"""Rigid alignment of a scan to an image: the pose whose prediction fits the scan, by Levenberg-Marquardt.

The Jacobian is analytic: a scan whose grid moves by a small turn w and shift t sees the image at r + w x r + t, so the
prediction changes by A (grad I . (w x r + t)): one interpolation and six products with the separable operator a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from mrcore.data.acquisition import Psf
from mrcore.data.grid import Grid, Triple, directions, to_world
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.forward import covering_grid, imaging_operator
from mrcore.spatial.registration import block_mean
from mrcore.spatial.resampling import resample

Matrix = NDArray[np.float64]

_RADIUS_MM = 70.0  # of a head: turns count by how far they move its surface


@dataclass(frozen=True)
class Pose:
    """Where a scan's grid lies beyond what its header says: turned about the centre of its field of view, then shifted.

    `turn_deg` is a rotation vector (axis times angle, right-handed) and `shift_mm` a shift, both along the world axes.

    Raises:
        BadInputError: values that are not three finite numbers each.
    """

    turn_deg: Triple = (0.0, 0.0, 0.0)
    shift_mm: Triple = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        for name in ("turn_deg", "shift_mm"):
            values = tuple(float(v) for v in getattr(self, name))
            if len(values) != 3 or not all(map(math.isfinite, values)):
                raise BadInputError(f"{name} of a pose needs three finite numbers, got {values}")
            object.__setattr__(self, name, values)

    @property
    def angle_deg(self) -> float:
        """How far the scan is turned."""
        return math.hypot(*self.turn_deg)

    @property
    def distance_mm(self) -> float:
        """How far the centre of the scan is shifted."""
        return math.hypot(*self.shift_mm)


@dataclass(frozen=True)
class AlignmentSettings:
    """Settings of `align`: voxel sizes of the image, coarse to fine, steps at each, and when to stop.

    `tolerance_mm` is the step at the surface of a head below which a level ends. Residuals beyond `huber` robust
    standard deviations count linearly.
    """

    levels_mm: tuple[float, ...] = (4.0, 2.0)
    n_steps: int = 8
    tolerance_mm: float = 0.02
    huber: float = 2.0

    def __post_init__(self) -> None:
        if not self.levels_mm or min(*self.levels_mm, self.tolerance_mm, self.huber) <= 0 or self.n_steps < 1:
            raise BadInputError(f"alignment needs positive levels_mm, tolerance_mm, huber and n_steps, got {self}")


@dataclass(frozen=True)
class Alignment:
    """Result of `align`: `pose`, intensity `scale`, whether it `converged`, the cost per weight as `history`."""

    pose: Pose
    scale: float
    converged: bool
    history: tuple[float, ...]


def centre_of(grid: Grid) -> NDArray[np.float64]:
    """Return the world position of the centre of the field of view."""
    return to_world(grid, (np.array(grid.shape) - 1) / 2)


def pose_matrix(pose: Pose, grid: Grid) -> Matrix:
    """Return the motion (4 x 4, world mm) of `pose` for a scan whose header says `grid`."""
    centre, out = centre_of(grid), np.eye(4)
    out[:3, :3] = Rotation.from_rotvec(pose.turn_deg, degrees=True).as_matrix()
    out[:3, 3] = centre + np.array(pose.shift_mm) - out[:3, :3] @ centre
    return out


def pose_of(motion: Matrix, grid: Grid) -> Pose:
    """Return the pose of a rigid `motion` (4 x 4, world mm) for a scan whose header says `grid`."""
    centre = centre_of(grid)
    turn = Rotation.from_matrix(motion[:3, :3]).as_rotvec(degrees=True)
    shift = motion[:3, :3] @ centre + motion[:3, 3] - centre
    return Pose(cast("Triple", tuple(turn)), cast("Triple", tuple(shift)))


def apart(a: Pose, b: Pose, grid: Grid) -> Pose:
    """Return the pose that is left between two of a scan whose header says `grid`."""
    return pose_of(np.linalg.inv(pose_matrix(b, grid)) @ pose_matrix(a, grid), grid)


def posed(grid: Grid, pose: Pose) -> Grid:
    """Return the grid of a scan where `pose` puts it."""
    return grid if pose == Pose() else Grid(grid.shape, pose_matrix(pose, grid) @ grid.affine)


def align(
    image: Volume,
    scan: Volume,
    psf: Psf,
    start: Pose,
    weights: Tensor | None = None,
    settings: AlignmentSettings | None = None,
) -> Alignment:
    """Find the pose of `scan` (grid as its header says) in the frame of `image`, and its intensity scale.

    Minimises sum w rho(y - scale A(pose) x) over pose and scale; `weights` (scan's shape) are w, 1 if None. rho is
    Huber's, its sd 1.4826 times the median absolute residual where the prediction is not background.

    Raises:
        BadInputError: an image that predicts nothing in the scan at `start`.
    """
    settings = settings or AlignmentSettings()
    image, scan = (Volume(volume.data.cpu(), volume.grid) for volume in (image, scan))  # splines are found there
    weight = torch.ones_like(scan.data) if weights is None else weights.cpu()
    pose, scale, history, settled = start, 1.0, [], False
    for level_mm in settings.levels_mm:
        coarse = block_mean(image, level_mm)
        pose, scale, costs, settled = _descend(coarse, scan, psf, pose, weight, settings)
        history += costs
    return Alignment(pose, scale, settled, tuple(history))


def fitted_scale(measured: Tensor, predicted: Tensor, weights: Tensor, settings: AlignmentSettings) -> float:
    """Return the intensity scale that `align` would find if the pose were right."""
    return _scale(measured, predicted, _huber(measured, predicted, weights, settings.huber))


def _descend(
    image: Volume, scan: Volume, psf: Psf, pose: Pose, weight: Tensor, settings: AlignmentSettings
) -> tuple[Pose, float, list[float], bool]:
    """Return pose and scale after the steps of one level, the costs, and whether the steps became small."""
    damping, history = 1e-3, []
    predicted, slopes = _linearised(image, posed(scan.grid, pose), psf)
    robust = _huber(scan.data, predicted, weight, settings.huber)
    scale = _scale(scan.data, predicted, robust)
    cost = _cost(scan.data, predicted, scale, robust)
    for _ in range(settings.n_steps):
        history.append(cost)
        step = _step(scan.data - scale * predicted, scale * slopes, robust, damping)
        trial = _moved(pose, step, scan.grid)
        if float(np.abs(step).max()) < settings.tolerance_mm:
            return trial, scale, history, True
        found, slopes_there = _linearised(image, posed(scan.grid, trial), psf)
        if _cost(scan.data, found, _scale(scan.data, found, robust), robust) >= cost:
            damping *= 10
            continue
        pose, predicted, slopes, damping = trial, found, slopes_there, damping / 10
        # The weights follow the residuals; cost and scale under the new ones are what the next step is compared with.
        robust = _huber(scan.data, predicted, weight, settings.huber)
        scale = _scale(scan.data, predicted, robust)
        cost = _cost(scan.data, predicted, scale, robust)
    return pose, scale, history, False


def _linearised(image: Volume, scan_grid: Grid, psf: Psf) -> tuple[Tensor, Tensor]:
    """Return the prediction (scan's shape) and its slopes (6, ...) per mm of shift, and of turn at 70 mm."""
    spacing = min(image.grid.spacing_mm)
    lattice = covering_grid(scan_grid, spacing, margin_mm=max(scan_grid.spacing_mm))
    there = resample(image, lattice, order=3).data
    operator = imaging_operator(lattice, scan_grid, psf, dtype=there.dtype)
    axes = torch.from_numpy(directions(lattice)).to(there)
    along = torch.stack(torch.gradient(there, spacing=spacing))
    gradient = torch.einsum("wa,axyz->wxyz", axes, along)
    index = [torch.arange(n, dtype=there.dtype) - (n - 1) / 2 for n in lattice.shape]
    # The lattice is centred on the scan, about whose centre it turns.
    r = torch.einsum("wa,axyz->wxyz", axes * spacing, torch.stack(torch.meshgrid(*index, indexing="ij")))
    slopes = torch.cat([gradient, torch.linalg.cross(r, gradient, dim=0) / _RADIUS_MM])
    return operator(there), operator(slopes)


def _step(residual: Tensor, slopes: Tensor, weight: Tensor, damping: float) -> NDArray[np.float64]:
    """Return the damped Gauss-Newton step: shift in mm, turn in mm at 70 mm."""
    jacobian = slopes.flatten(1).double()
    weighted = jacobian * weight.flatten().double()
    normal = weighted @ jacobian.T
    diagonal = normal.diagonal().mean()
    if not float(diagonal) > 0:
        raise BadInputError("the image shows nothing where the scan lies; check the headers or register them first")
    # Not by each parameter's own curvature: a direction without slopes must not run away.
    damped = normal + (damping * diagonal) * torch.eye(6, dtype=torch.float64)
    return np.asarray(torch.linalg.solve(damped, weighted @ residual.flatten().double()).numpy())


def _moved(pose: Pose, step: NDArray[np.float64], grid: Grid) -> Pose:
    """Return `pose` followed by a small motion about where the scan's centre then lies."""
    turn = Rotation.from_rotvec(step[3:] / _RADIUS_MM) * Rotation.from_rotvec(pose.turn_deg, degrees=True)
    shift = np.array(pose.shift_mm) + step[:3]
    return Pose(cast("Triple", tuple(turn.as_rotvec(degrees=True))), cast("Triple", tuple(shift)))


def _huber(measured: Tensor, predicted: Tensor, weight: Tensor, limit: float) -> Tensor:
    """Return the weights times Huber's, min(1, limit sd / |residual|)."""
    residual = (measured - _scale(measured, predicted, weight) * predicted).abs()
    counted = residual[(weight > 0) & (predicted > 0.1 * predicted.max())]
    if counted.numel() == 0:
        return weight
    sd = 1.4826 * float(counted.median())
    return weight * (limit * sd / residual.clamp_min(1e-12)).clamp_max(1.0)


def _scale(measured: Tensor, predicted: Tensor, weight: Tensor) -> float:
    """Return the factor of the prediction that fits best in the weighted least-squares sense."""
    power = float((weight * predicted.square()).double().sum())
    return float((weight * predicted * measured).double().sum()) / power if power > 0 else 1.0


def _cost(measured: Tensor, predicted: Tensor, scale: float, weight: Tensor) -> float:
    total = float((weight * (measured - scale * predicted).square()).double().sum())
    return total / max(float(weight.double().sum()), 1e-12)
