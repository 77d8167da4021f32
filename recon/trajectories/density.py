"""Density compensation: the volume of k-space that each sample of a trajectory stands for."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mrcore.errors import BadInputError
from mrcore.operators.nufft import NufftOp
from recon.trajectories.trajectory import Trajectory


def density_compensation(trajectory: Trajectory, n_iter: int = 20, device: torch.device | str = "cpu") -> Tensor:
    """Return weights (N,), float32, by which the smoothed density of all samples together becomes 1.

    Iterates w <- w / (C w), with C a convolution in k-space by a kernel that is the transform of a triangle over twice
    the field of view: not negative, about 1/FOV wide. C is applied through the NUFFT. Pipe & Menon, MRM 1999;41:179;
    the kernel after Johnson & Pipe, MRM 2009;61:439.

    A sample's weight is its volume in units of a Cartesian cell, 1/FOV an axis, times the number of frames: where
    every frame is sampled fully on the Cartesian grid the weights are 1, and A^H W A of a subspace encoding whose coil
    maps have a sum of squares of 1 is about the identity wherever k-space is covered.

    Raises:
        BadInputError: a number of iterations below one.
    """
    if n_iter < 1:
        raise BadInputError(f"density compensation needs at least one iteration, got {n_iter}")
    shape = trajectory.grid.shape
    doubled = tuple(2 * n if n > 1 else 1 for n in shape)
    nufft = NufftOp(trajectory.k_cyc_per_mm, doubled, trajectory.grid.spacing_mm, device=device)
    window = torch.ones(doubled, device=device)
    for axis, n in enumerate(shape):
        if n > 1:
            distance = (torch.arange(2 * n, device=device) - n).abs() / n
            window *= (1 - distance).reshape([-1 if a == axis else 1 for a in range(3)])
    window *= math.prod(doubled) / math.prod(shape)  # the kernel's integral over k times FOV becomes 1
    weights = torch.ones(trajectory.n_samples, device=device)
    for _ in range(n_iter):
        smoothed = nufft(window * nufft.H(weights.to(nufft.dtype))).real
        weights = weights / smoothed.clamp_min(torch.finfo(torch.float32).tiny)
    return trajectory.n_frames * weights
