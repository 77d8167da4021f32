"""Which part of a voxel's signal each tissue has: what tissue gains act on.

With volume fractions p and signals I_t of the pure tissues, a voxel's signal is sum_t p_t I_t, of which
p_t I_t / sum_s p_s I_s belongs to tissue t. Gains applied to these shares change a mixed voxel as a scanner would.
Applied to p itself, as published, they bend intensities at tissue borders into false rims, and so they do where
the fractions of a segmentation do not fit the intensity of the voxel; so the fractions are first made to fit it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from mrcore.data.volume import TissueMap, Volume
from mrcore.operators.separable import SeparableOp
from ulfsim.source.window import Window, true_voxels

_DOUBT = 2e-3  # weight of what the intensity alone says, so that a wrong label can give way
_STEEPEST, _N_STEPS, _SETTLED = 60.0, 6, 0.2
_N_AT_ONCE = 1 << 18  # fractions that fit the caches of two processors
_SMOOTH_MM = 20.0


def signal_shares(volume: Volume, tissues: TissueMap, window: Window, levels: Sequence[float]) -> Tensor:
    """Return the share (T, x, y, z) of each voxel's signal that each tissue has; sums are those of `tissues`.

    `tissues` lie on `window` of `volume`, outside of which there is none; `levels` are the means of the image in
    their cores.

    The fractions are tilted, p_t exp(l I_t) with one l per voxel, until they explain its intensity, given the levels
    and a bias field of 20 mm smoothness. Where they cannot, because the voxel was given
    to one tissue, it is taken as a mixture of the two tissues next to it in intensity. At the rim of the mask, where
    less than half a voxel is tissue, nothing can be fitted and the fractions stay.
    """
    image, prob = volume.data[window].float(), tissues.prob.float()
    shares, top = prob.clone(), max(levels)
    if len(prob) == 1 or not top > 0:
        return shares
    means = torch.tensor([max(level, 1e-3 * top) for level in levels], device=prob.device)
    bias = _bias(image, torch.tensordot(means, prob, 1), volume, window).reshape(-1)
    order = means.argsort()
    back, ascending = order.argsort(), (means[order] / top)[:, None]
    flat_image, out = image.reshape(-1), shares.view(len(prob), -1)
    inside = true_voxels(prob.sum(0) > 0.5)

    def split(at: Tensor) -> None:
        fractions = out.index_select(1, at)[order]
        total = _sum(fractions)
        intensity = flat_image.index_select(0, at).div_(bias.index_select(0, at).mul_(top))
        signal = _tilted(fractions.div_(total), ascending, intensity).mul_(ascending)
        out.index_copy_(1, at, signal.mul_(total.div_(_sum(signal)))[back])

    for at in torch.split(inside, max(1, _N_AT_ONCE // len(prob)) if inside.device.type == "cpu" else len(inside)):
        split(at)
    return shares


def _tilted(fractions: Tensor, levels: Tensor, intensity: Tensor) -> Tensor:
    """Return fractions (T, N) proportional to fractions exp(l levels), whose mean signal is `intensity` (N).

    `levels` (T, 1) ascend, up to 1. The excess over the intensity of the brighter tissues, sum q d exp(l d) with
    d = level - intensity, must equal the lack of the darker ones. In logarithms both are nearly straight lines of l,
    exactly so for two tissues, and Newton's method needs few steps. |l| is at most 60.
    """
    weight = (fractions + _DOUBT * _between(levels, intensity)).clamp_min_(0)
    distance = levels - intensity.clamp(float(levels[0]), float(levels[-1]))
    slope = weight * distance
    tilt, terms = torch.zeros_like(intensity), slope
    for _ in range(_N_STEPS):
        excess = terms[1:].clamp_min(0)  # the darkest tissue lacks, the brightest exceeds
        lack = terms[:-1].clamp_max(0)
        above, below = _sum(excess).add_(1e-30), _sum(lack).sub_(1e-30)  # one of them is 0 on a tissue's level
        rise = _sum(excess.mul_(distance[1:])).div_(above).sub_(_sum(lack.mul_(distance[:-1])).div_(below))
        before = tilt
        tilt = (tilt - above.div_(below).neg_().log_().div_(rise.clamp_min_(1e-9))).clamp_(-_STEEPEST, _STEEPEST)
        if float(before.sub_(tilt).abs_().max()) < _SETTLED:  # the next step would be far below what shares show
            break
        terms = (distance * tilt).exp_().mul_(slope)
    tilt = torch.where(intensity >= levels[-1], _STEEPEST, torch.where(intensity <= levels[0], -_STEEPEST, tilt))
    tilted = ((levels - levels[-1]) * tilt).exp_().mul_(weight)
    return tilted.div_(_sum(tilted))


def _sum(rows: Tensor) -> Tensor:
    """Return the sum (N) of few long rows (T, N), which `Tensor.sum` is slow at."""
    return reduce(Tensor.add_, rows[1:].unbind(), rows[0].clone())


def _between(levels: Tensor, intensity: Tensor) -> Tensor:
    """Return the fractions (T, N) of the two tissues between whose levels an intensity lies; ends are pure."""
    gaps = (levels[1:] - levels[:-1]).clamp_min(1e-6)
    passed = ((intensity - levels[:-1]) / gaps).clamp_(0, 1)
    ones = torch.ones_like(intensity)[None]
    return torch.cat([ones, passed]) - torch.cat([passed, torch.zeros_like(ones)])


def _bias(image: Tensor, expected: Tensor, volume: Volume, window: Window) -> Tensor:
    """Return the smooth ratio (x, y, z) of image and expectation on `window`, between 0.5 and 2.

    It is found on a coarse lattice: means over cells, a Gaussian, the ratio, linear interpolation; per axis the first
    two are one matrix and the last is another.
    """
    down, up = [], []
    for n, spacing_mm, part in zip(volume.grid.shape, volume.grid.spacing_mm, window, strict=True):
        factor = max(1, min(n, round(0.3 * _SMOOTH_MM / spacing_mm)))
        down.append(_smoothing(n, factor, _SMOOTH_MM / spacing_mm)[:, part].contiguous().to(image))
        up.append(_interpolation(n, math.ceil(n / factor))[part].to(image))
    smooth = SeparableOp((down[0], down[1], down[2]))
    seen, wanted = smooth(torch.where(expected > 0, image, 0.0)), smooth(expected)
    ratio = torch.where(wanted > 0, (seen / wanted.clamp_min(1e-12)).clamp(0.5, 2.0), 1.0)
    return SeparableOp((up[0], up[1], up[2]))(ratio)


def _smoothing(n: int, factor: int, fwhm_voxels: float) -> Tensor:
    """Return the matrix (cells, n) from voxels to means over cells of `factor`, smoothed up to 3 sigma."""
    cells = torch.arange(math.ceil(n / factor))
    means = (torch.arange(n) // factor == cells[:, None]).float()
    means = means / means.sum(1, keepdim=True)
    sigma = fwhm_voxels / factor / math.sqrt(8 * math.log(2))
    reach = math.ceil(3 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    distance = (cells - cells[:, None]).abs()
    weight = torch.where(distance <= reach, torch.exp(-0.5 * (distance / sigma) ** 2), 0.0) / kernel.sum()
    return weight @ means


def _interpolation(n: int, n_cells: int) -> Tensor:
    """Return the matrix (n, cells) of linear interpolation between the centres of cells; constant beyond the ends."""
    at = ((torch.arange(n) + 0.5) * n_cells / n - 0.5).clamp(0, n_cells - 1)
    return (1 - (at[:, None] - torch.arange(n_cells)).abs()).clamp_min(0)
