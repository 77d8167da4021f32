"""Artefacts of the order in which k-space is read: motion between shots, Nyquist ghost, drift; and wrap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from mrcore.data.grid import Grid, Shape3, Triple, cropped, to_world
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator
from mrcore.operators.fourier import FourierOp
from mrcore.operators.indexing import CropOp
from mrcore.operators.linop import LinearOp
from mrcore.operators.pointwise import ComplexOp, DiagonalOp
from mrcore.operators.separable import SeparableOp
from ulfsim.artefacts.encoding import AxisRoles, along_axis, field_of_view_centre
from ulfsim.plan import ScanPlan


@dataclass(frozen=True)
class ShotPose:
    """Rigid displacement of the head, in world axes.

    It turns about R, then A, then S through the centre of the field of view, and is shifted then.

    Raises:
        BadInputError: numbers that are not finite, shifts beyond 200 mm or turns beyond 180 degrees.
    """

    shift_mm: Triple = (0.0, 0.0, 0.0)
    rotation_deg: Triple = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        for name, limit in (("shift_mm", 200), ("rotation_deg", 180)):
            values = getattr(self, name)
            if len(values) != 3 or not all(abs(v) <= limit for v in values):
                raise BadInputError(f"{name} of a pose needs three numbers within {limit} of 0, got {values}")
            object.__setattr__(self, name, tuple(float(v) for v in values))


@dataclass(frozen=True)
class ShotMotion:
    """Rigid motion between the shots that share the phase-encoding lines.

    Bias and distortions move with the head: its motion is small against the scale of the fields.

    Attributes:
        poses: one per shot.
        interleaved: shot s holds every n-th line (s, s + n, ...); otherwise a block of neighbouring lines.

    Raises:
        BadInputError: fewer than two poses.
    """

    poses: tuple[ShotPose, ...]
    interleaved: bool = True

    def __post_init__(self) -> None:
        if len(self.poses) < 2:
            raise BadInputError(f"motion between shots needs at least two poses, got {len(self.poses)}")
        object.__setattr__(self, "poses", tuple(self.poses))

    @property
    def moves(self) -> bool:
        """Whether any shot is out of place."""
        return any(pose != ShotPose() for pose in self.poses)


@dataclass(frozen=True)
class NyquistGhost:
    """Difference between odd and even phase-encoding lines.

    Attributes:
        phase_deg: phase of even lines minus that of odd ones, -180 to 180.
        gain_difference: relative gain of even lines minus that of odd ones, -1 to 1.
    """

    phase_deg: float
    gain_difference: float = 0.0

    def __post_init__(self) -> None:
        if not (abs(self.phase_deg) <= 180 and abs(self.gain_difference) <= 1):
            raise BadInputError(f"a ghost needs a phase within 180 degrees and a gain difference within 1, got {self}")


@dataclass(frozen=True)
class IntensityDrift:
    """Slow change of the receive gain during the scan.

    Attributes:
        change: relative gain at the end minus that at the start, -1 to 1; the mean is 1.
        over_slices: slices are read one after another; otherwise phase-encoding lines are.
        n_passes: 1 in order, 2 first the even then the odd ones, and so on.
    """

    change: float
    over_slices: bool = False
    n_passes: int = 1

    def __post_init__(self) -> None:
        if not abs(self.change) <= 1:
            raise BadInputError(f"the relative change of a drift is between -1 and 1, got {self.change}")
        if self.n_passes < 1:
            raise BadInputError(f"n_passes must be at least 1, got {self.n_passes}")


@dataclass(frozen=True)
class Wrap:
    """Field of view smaller than the object along the phase axis: what lies outside folds back.

    The scan keeps its grid; outside the reduced field of view it holds noise only.

    Attributes:
        fov_fraction: reduced over full field of view, between 0.1 and 1.
    """

    fov_fraction: float

    def __post_init__(self) -> None:
        if not 0.1 <= self.fov_fraction <= 1:
            raise BadInputError(f"fov_fraction must be between 0.1 and 1, got {self.fov_fraction}")


def lines_of_shot(motion: ShotMotion, shot: int, n_lines: int) -> Tensor:
    """Return which of `n_lines` phase-encoding lines (bool) belong to a shot."""
    line, n_shots = torch.arange(n_lines), len(motion.poses)
    return line % n_shots == shot if motion.interleaved else line * n_shots // n_lines == shot


def ghost_weight(ghost: NyquistGhost, n_lines: int) -> Tensor:
    """Return the complex factor of each line; line `n // 2` is the centre of k-space and even.

    The factors are (1 +- gain / 2) exp(+- i phase / 2), so the image keeps c times itself, c = cos(phase / 2) + i gain
    / 2 sin(phase / 2), and gains a ghost half a field of view away of i sin(phase / 2) + gain / 2 cos(phase / 2)
    (Bruder et al., MRM 1992;23:311).
    """
    sign = 1.0 - 2.0 * ((torch.arange(n_lines) - n_lines // 2) % 2).double()
    phase = sign * math.radians(ghost.phase_deg) / 2
    return torch.polar(1 + sign * ghost.gain_difference / 2, phase)


def drift_weight(drift: IntensityDrift, n: int) -> Tensor:
    """Return the gain of each line or slice: linear in the time at which it is read, 1 in the mean."""
    order = torch.cat([torch.arange(start, n, drift.n_passes) for start in range(min(drift.n_passes, n))])
    time = torch.empty(n, dtype=torch.float64)
    time[order] = torch.linspace(0, 1, n, dtype=torch.float64) if n > 1 else torch.tensor([0.5], dtype=torch.float64)
    return 1 + drift.change * (time - 0.5)


def wrap_operator(wrap: Wrap, axis: int, shape: Shape3, dtype: torch.dtype, device: torch.device) -> LinearOp:
    """Return the operator that folds an image (X, Y, Z) along `axis`; its shape and voxels stay.

    Lines 1 / (fraction x field of view) apart cannot tell positions that are a reduced field of view apart: they are
    added. The image is that of the n' = round(fraction x n) middle voxels; the others are 0.
    """
    n = shape[axis]
    kept = max(1, round(wrap.fov_fraction * n))
    start = n // 2 - kept // 2
    fold = torch.zeros(n, n)
    voxel = torch.arange(n)
    fold[start + (voxel - start) % kept, voxel] = 1
    a, b, c = ((fold if i == axis else torch.eye(size)).to(device, dtype) for i, size in enumerate(shape))
    return SeparableOp((a, b, c))


def pose_matrix(pose: ShotPose, centre_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the 4 x 4 matrix that moves the head, world mm to world mm."""
    out = np.eye(4)
    out[:3, :3] = Rotation.from_euler("xyz", pose.rotation_deg, degrees=True).as_matrix()
    out[:3, 3] = centre_mm + np.array(pose.shift_mm) - out[:3, :3] @ centre_mm
    return out


def scan_operator(plan: ScanPlan, lattice: Grid, pose: ShotPose) -> LinearOp:
    """Return the imaging operator from `lattice` to the scan of an object in `pose`: the scan's grid is moved back.

    The lattice is padded with zeros by as much as the scan's corners move, so that nothing wraps. An object at rest is
    not padded.
    """
    dtype, device, psf = plan.operator.dtype, plan.operator.device, plan.acquisition.psf
    if pose == ShotPose():
        if lattice is plan.object_grid:
            return plan.operator
        return imaging_operator(lattice, plan.scan_grid, psf, dtype, device)
    scan = plan.scan_grid
    moved = Grid(scan.shape, np.linalg.inv(pose_matrix(pose, field_of_view_centre(scan))) @ scan.affine)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in scan.shape])).reshape(3, -1).T
    way_mm = float(np.linalg.norm(to_world(moved, corners) - to_world(scan, corners), axis=1).max())
    i, j, k = (math.ceil(way_mm / spacing) + 1 for spacing in lattice.spacing_mm)
    shape = (lattice.shape[0] + 2 * i, lattice.shape[1] + 2 * j, lattice.shape[2] + 2 * k)
    padded = cropped(lattice, (-i, -j, -k), shape)
    return imaging_operator(padded, moved, psf, dtype, device) @ CropOp(shape, lattice.shape, dtype, device).H


def k_space_of(plan: ScanPlan, lattice: Grid, encoding: AxisRoles, motion: ShotMotion | None) -> LinearOp:
    """Return the operator from the object on `lattice` to its complex k-space: sum_s M_s F A_s, lines M_s of shot s.

    Shots in the same pose are scanned once.
    """
    shape, dtype, device = plan.operator.shape_out, plan.operator.dtype, plan.operator.device
    to_k = FourierOp(shape, dtype, device) @ ComplexOp(shape, dtype, device)
    if motion is None:
        return to_k @ scan_operator(plan, lattice, ShotPose())
    parts = []
    for pose in dict.fromkeys(motion.poses):
        shots = [s for s, each in enumerate(motion.poses) if each == pose]
        mine = torch.stack([lines_of_shot(motion, s, shape[encoding.phase_axis]) for s in shots]).any(0)
        lines = DiagonalOp(along_axis(mine.to(device, dtype), encoding.phase_axis, plan.scan_grid.shape))
        parts.append(lines @ to_k @ scan_operator(plan, lattice, pose))
    return reduce(LinearOp.__add__, parts)
