"""Trajectories built from a grid: spirals, radial lines, stacks of spirals, spiral projections, Cartesian masks.

Arms turn by golden angles from frame to frame, so any run of frames covers k-space evenly (Winkelmann et al., IEEE
TMI 2007;26:68). `n_interleaves` is the number of arms that together sample a plane at the Nyquist rate: a frame of one
arm is undersampled by that factor. All frames of T arms hold T / n_interleaves full planes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from mrcore.data.grid import Grid
from mrcore.errors import BadInputError
from recon.trajectories.trajectory import Trajectory

F64 = torch.float64

_GOLDEN_RATIO = (1 + math.sqrt(5)) / 2
_GOLDEN_TURN = 2 * math.pi / _GOLDEN_RATIO  # arms from the centre: 222.5 degrees
_GOLDEN_LINE = math.pi / _GOLDEN_RATIO  # lines through the centre: 111.2 degrees
_GOLDEN_MEANS = (0.4656, 0.6823)  # of directions in 3-D: Chan et al., MRM 2009;61:354
_N_FINE = 20_000  # points at which the length of an arm is measured


def spiral(
    grid: Grid,
    n_frames: int,
    n_interleaves: int,
    n_samples: int | None = None,
    density_power: float = 1.0,
    arms_per_frame: int = 1,
) -> Trajectory:
    """Return spirals of constant speed from the centre, in every slice plane alike (`grid` of one slice).

    The radius grows as the angle to the `density_power`: 1 samples evenly, more gives the centre more samples while
    the outermost turns keep the rate of `n_interleaves`. `n_samples` of an arm (None: Nyquist along the arm).

    Raises:
        BadInputError: counts below one, a power below one, a grid of more than one slice.
    """
    _require_slice(grid)
    arm = _arm(grid, n_interleaves, n_samples, density_power)
    _require_counts(n_frames=n_frames, arms_per_frame=arms_per_frame)
    angle = _GOLDEN_TURN * torch.arange(n_frames * arms_per_frame, dtype=F64)
    k = _scaled(_turned(arm, angle), grid)
    return _in_frames(k, torch.arange(n_frames).repeat_interleave(arms_per_frame), n_frames, grid)


def radial(grid: Grid, n_frames: int, lines_per_frame: int = 1, n_samples: int | None = None) -> Trajectory:
    """Return golden-angle lines through the centre (`grid` of one slice); pi/2 times the matrix are a full plane.

    A line runs from one edge of k-space to just before the other, its sample `n_samples // 2` at the centre (None:
    twice the matrix, the usual oversampling of a readout).

    Raises:
        BadInputError: counts below one, a grid of more than one slice.
    """
    _require_slice(grid)
    n_samples = 2 * max(grid.shape) if n_samples is None else n_samples
    _require_counts(n_frames=n_frames, lines_per_frame=lines_per_frame, n_samples=n_samples)
    angle = _GOLDEN_LINE * torch.arange(n_frames * lines_per_frame, dtype=F64)
    line = (torch.arange(n_samples, dtype=F64) - n_samples // 2) * (2 / n_samples)
    k = _scaled(_turned(line + 0j, angle), grid)
    return _in_frames(k, torch.arange(n_frames).repeat_interleave(lines_per_frame), n_frames, grid)


def stack_of_spirals(
    grid: Grid,
    n_frames: int,
    n_interleaves: int,
    partition_step: int = 1,
    n_samples: int | None = None,
    density_power: float = 1.0,
) -> Trajectory:
    """Return spirals in planes of constant kz: a frame has one arm in every `partition_step`-th partition.

    The partitions of a frame start one later than those of the frame before, and their arms turn by golden angles
    from arm to arm: a frame is undersampled by `n_interleaves` times `partition_step`.

    Raises:
        BadInputError: counts below one, a power below one.
    """
    arm = _arm(grid, n_interleaves, n_samples, density_power)
    n_partitions = grid.shape[2]
    _require_counts(n_frames=n_frames, partition_step=partition_step)
    frame, partition = torch.meshgrid(torch.arange(n_frames), torch.arange(n_partitions), indexing="ij")
    chosen = (partition - frame) % partition_step == 0
    frame, partition = frame[chosen], partition[chosen]
    k = _turned(arm, _GOLDEN_TURN * torch.arange(len(frame), dtype=F64))
    k[..., 2] = 2 * (partition.double() - n_partitions // 2)[:, None] / n_partitions
    return _in_frames(_scaled(k, grid), frame, n_frames, grid)


def spiral_projection(
    grid: Grid,
    n_frames: int,
    n_interleaves: int,
    arms_per_frame: int,
    n_samples: int | None = None,
    density_power: float = 1.0,
) -> Trajectory:
    """Return spirals in planes through the centre, whose normals cover the sphere by golden means.

    Full sampling takes about `n_interleaves` times the matrix arms; planes turn from arm to arm, in a frame and
    between frames. Cao et al., MRM 2022;88:133.

    Raises:
        BadInputError: counts below one, a power below one.
    """
    arm = _arm(grid, n_interleaves, n_samples, density_power)
    _require_counts(n_frames=n_frames, arms_per_frame=arms_per_frame)
    number = torch.arange(n_frames * arms_per_frame, dtype=F64)
    height, azimuth = 2 * (number * _GOLDEN_MEANS[0] % 1) - 1, 2 * math.pi * (number * _GOLDEN_MEANS[1] % 1)
    k = _turned(arm, _GOLDEN_TURN * number) @ _facing(height, azimuth)
    return _in_frames(_scaled(k, grid), torch.arange(n_frames).repeat_interleave(arms_per_frame), n_frames, grid)


def cartesian(mask: Tensor, grid: Grid) -> Trajectory:
    """Return the samples of a bool `mask` (frames, X, Y, Z) over centred k-space, in the order of its rows.

    Raises:
        BadInputError: a mask of another grid, or an empty one.
    """
    if mask.dtype != torch.bool or mask.ndim != 4 or tuple(mask.shape[1:]) != grid.shape or not bool(mask.any()):
        raise BadInputError(
            f"expected a bool mask (frames, {', '.join(map(str, grid.shape))}) that is not empty, got {mask.dtype} "
            f"{tuple(mask.shape)}"
        )
    place = mask.nonzero()
    centre = torch.tensor([n // 2 for n in grid.shape])
    k = (place[:, 1:] - centre) / torch.tensor(grid.fov_mm, dtype=F64)
    return Trajectory(k, place[:, 0].contiguous(), len(mask), grid)


def _arm(grid: Grid, n_interleaves: int, n_samples: int | None, density_power: float) -> Tensor:
    """Return one spiral arm (n,), complex, of radius 0 to 1, run through at constant speed."""
    if not density_power >= 1:
        raise BadInputError(f"density_power must be 1 (even) or more, got {density_power}")
    _require_counts(n_interleaves=n_interleaves)
    matrix = max(grid.shape[:2])
    n_turns = density_power * matrix / 2 / n_interleaves
    share = np.linspace(0, 1, _N_FINE)
    path = share**density_power * np.exp(2j * np.pi * n_turns * share)
    length = np.concatenate(([0.0], np.abs(np.diff(path)).cumsum())) * matrix / 2  # in cycles per field of view
    n_samples = math.ceil(length[-1]) + 1 if n_samples is None else n_samples
    _require_counts(n_samples=n_samples)
    share = np.interp(np.linspace(0, length[-1], n_samples), length, share)
    return torch.from_numpy(share**density_power * np.exp(2j * np.pi * n_turns * share))


def _turned(arm: Tensor, angle: Tensor) -> Tensor:
    """Return copies (n_arms, n_samples, 3) of a planar arm, each turned by its angle."""
    turned = arm * torch.polar(torch.ones_like(angle), angle)[:, None]
    return torch.stack((turned.real, turned.imag, torch.zeros_like(turned.real)), -1)


def _facing(height: Tensor, azimuth: Tensor) -> Tensor:
    """Return rotations (n, 3, 3), for rows, of the plane z = 0 to the one whose normal has this height and azimuth."""
    flat = (1 - height**2).clamp_min(0).sqrt()
    cosine, sine, zero = azimuth.cos(), azimuth.sin(), torch.zeros_like(azimuth)
    first = torch.stack((height * cosine, height * sine, -flat), -1)
    second = torch.stack((-sine, cosine, zero), -1)
    normal = torch.stack((flat * cosine, flat * sine, height), -1)
    return torch.stack((first, second, normal), -2)


def _scaled(k: Tensor, grid: Grid) -> Tensor:
    """Return positions in cycles/mm from positions in shares of the Nyquist frequency."""
    return k * (0.5 / torch.tensor(grid.spacing_mm, dtype=k.dtype))


def _in_frames(k: Tensor, frame: Tensor, n_frames: int, grid: Grid) -> Trajectory:
    """Return the trajectory of arms (n_arms, n_samples, 3), each in one frame."""
    return Trajectory(k.reshape(-1, 3), frame.repeat_interleave(k.shape[1]), n_frames, grid)


def _require_slice(grid: Grid) -> None:
    if grid.shape[2] != 1:
        raise BadInputError(f"a planar trajectory needs a grid of one slice, got {grid.shape}")


def _require_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise BadInputError(f"{name} must be at least 1, got {value}")
