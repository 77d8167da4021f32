"""The regression: one pass of the network adds to the Wiener estimate what the physics alone cannot know."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from iqt.model.unet import FoldedUNet, UNetSettings
from mrcore.data.grid import Triple
from mrcore.operators.separable import SeparableOp
from mrcore.scan_cubes import ScanCubes
from mrcore.wiener import gaussian_solver

PRIOR_VARIANCE, PRIOR_LENGTH_MM = 0.12, 6.0
"""Of the Gaussian prior behind the start, where bright tissue is 1: the variance and correlation of T1w heads."""

RESIDUAL_SCALE = 0.08
"""Sd of what the start lacks inside a brain, about; networks that are not told do not begin to train."""

_OUTSIDE = 0.05
_MARGIN_MM = (4, 4, 5)  # a cube is one period of the operator, so its borders are wrong


class Restorer(nn.Module):
    """Regression network: Wiener start in, restored object out."""

    def __init__(self, settings: UNetSettings) -> None:
        super().__init__()
        self.net = FoldedUNet(settings)

    def forward(self, start: Tensor, conditions: Tensor) -> Tensor:
        """Map starts (B, X, Y, Z) and `conditions_of` them (B, 3) to objects."""
        residual: Tensor = self.net(2 * start[:, None] - 1, conditions)
        return start + RESIDUAL_SCALE * residual.float()


def wiener_start(operator: SeparableOp, scan: Tensor, noise_sd: Tensor, lattice_mm: float) -> Tensor:
    """Return the Gaussian estimate (B, X, Y, Z) of objects from scans (B, x, y, z) with noise of `noise_sd` (B,)."""
    length = PRIOR_LENGTH_MM / lattice_mm
    solver = gaussian_solver(operator, (length, length, length))
    return solver(scan, (noise_sd.square() / PRIOR_VARIANCE).reshape(-1, 1, 1, 1))


def conditions_of(noise_sd: Tensor, voxel_mm: Triple) -> Tensor:
    """Return what the network is told of scans (B, 3): noise, voxel in plane and across slices, each of unit scale."""
    in_plane = (voxel_mm[0] * voxel_mm[1]) ** 0.5
    voxel = torch.tensor([in_plane / 1.6, voxel_mm[2] / 5.0]).log() * 3
    noise = noise_sd.float().clamp_min(1e-4).log() * 0.7 + 2.4
    return torch.cat([noise[:, None], voxel.to(noise).expand(len(noise), 2)], 1)


def regression_loss(restorer: nn.Module, cubes: ScanCubes) -> Tensor:
    """Return the mean absolute error, of the brain and a voxel around it; elsewhere it counts little.

    Over all voxels a network would learn to blank Rician air, and little else.
    """
    start = wiener_start(cubes.operator, cubes.scan, cubes.noise_sd, cubes.lattice_mm)
    restored = restorer(start, conditions_of(cubes.noise_sd, cubes.voxel_mm))
    error = without_margin(restored.float() - cubes.truth, cubes.lattice_mm)
    weight = without_margin(brain_weight(cubes.brain), cubes.lattice_mm)
    return (weight * error.abs()).sum() / weight.sum()


def brain_weight(brain: Tensor) -> Tensor:
    """Return 1 in the brain and one voxel around it, and little elsewhere (B, X, Y, Z)."""
    near = functional.max_pool3d(brain[:, None].float(), 3, 1, 1)[:, 0]
    return _OUTSIDE + (1 - _OUTSIDE) * near


def without_margin(images: Tensor, lattice_mm: float) -> Tensor:
    """Cut off the border of cubes (B, X, Y, Z)."""
    a, b, c = (round(mm / lattice_mm) for mm in _MARGIN_MM)
    return images[:, a:-a, b:-b, c:-c]
