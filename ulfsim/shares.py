"""Which part of a voxel's signal each tissue has: what tissue gains act on.

With volume fractions p and signals I_t of the pure tissues, a voxel's signal is sum_t p_t I_t, of which
p_t I_t / sum_s p_s I_s belongs to tissue t. Gains applied to these shares change a mixed voxel as a scanner would.
Applied to p itself, as published, they bend intensities at tissue borders into false rims, and so they do where
the fractions of a segmentation do not fit the intensity of the voxel; so the fractions are first made to fit it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mrcore.volume import TissueMap, Volume
from ulfsim.measure import tissue_cores

_DOUBT = 2e-3  # weight of what the intensity alone says, so that a wrong label can give way
_STEEPEST, _N_HALVINGS = 60.0, 18


def signal_shares(volume: Volume, tissues: TissueMap) -> TissueMap:
    """Return the share of each voxel's signal that each tissue has; sums per voxel are those of `tissues`.

    The fractions are tilted, p_t exp(l I_t) with one l per voxel, until they explain its intensity, given the mean
    signals of the tissue cores and a bias field of 20 mm smoothness. Where they cannot, because the voxel was given
    to one tissue, it is taken as a mixture of the two tissues next to it in intensity.
    """
    inside = tissues.mask
    cores, _ = tissue_cores(tissues)
    means = torch.stack([volume.data[core].float().mean() for core in cores])
    top = float(means.max())
    if not top > 0 or not bool(inside.any()):
        return tissues
    means = means.clamp_min(1e-3 * top)
    fractions = tissues.prob[:, inside].float()
    total = fractions.sum(0)
    bias = _bias(volume.data.float(), torch.einsum("t,txyz->xyz", means, tissues.prob.float()), volume.grid.spacing_mm)
    fitted = _tilted(fractions / total, means / top, volume.data[inside].float() / (bias[inside] * top))
    signal = fitted * means[:, None]
    out = torch.zeros_like(tissues.prob)
    out[:, inside] = (signal / signal.sum(0) * total).to(out.dtype)
    # At the rim of the mask, where less than half a voxel is brain, nothing can be fitted.
    rim = ~inside & (tissues.prob.sum(0) > 0)
    out[:, rim] = tissues.prob[:, rim]
    return TissueMap(out, tissues.names, tissues.grid)


def _tilted(fractions: Tensor, means: Tensor, intensity: Tensor) -> Tensor:
    """Return fractions (T, N) proportional to fractions exp(l means), whose mean signal is `intensity` (N)."""
    logs = (fractions + _DOUBT * _between(means, intensity)).log()
    low, high = torch.full_like(intensity, -_STEEPEST), torch.full_like(intensity, _STEEPEST)
    # The mean signal rises with l: halve the interval.
    for _ in range(_N_HALVINGS):
        middle = 0.5 * (low + high)
        weight = torch.softmax(logs + middle * means[:, None], dim=0)
        too_dark = means @ weight < intensity
        low, high = torch.where(too_dark, middle, low), torch.where(too_dark, high, middle)
    return torch.softmax(logs + 0.5 * (low + high) * means[:, None], dim=0)


def _between(means: Tensor, intensity: Tensor) -> Tensor:
    """Return the fractions (T, N) of the two tissues between whose means an intensity lies; ends are pure."""
    order = means.argsort()
    levels = means[order]
    upper = torch.searchsorted(levels, intensity).clamp(1, len(means) - 1)
    part = (intensity - levels[upper - 1]) / (levels[upper] - levels[upper - 1]).clamp_min(1e-6)
    out = torch.zeros((len(means), intensity.numel()))
    out.scatter_(0, order[upper][None], part.clamp(0, 1)[None])
    out.scatter_(0, order[upper - 1][None], 1 - part.clamp(0, 1)[None])
    return out


def _bias(image: Tensor, expected: Tensor, spacing_mm: tuple[float, float, float], smooth_mm: float = 20.0) -> Tensor:
    """Return the smooth ratio (X, Y, Z) of image and expectation, between 0.5 and 2; evaluated on a coarse lattice."""
    factor = [max(1, min(n, round(0.3 * smooth_mm / s))) for n, s in zip(image.shape, spacing_mm, strict=True)]
    known = expected > 0
    pair = torch.stack([torch.where(known, image, 0.0), expected])[None]
    coarse = torch.nn.functional.avg_pool3d(pair, factor, ceil_mode=True, count_include_pad=False)
    for axis in range(3):
        sigma = smooth_mm / (spacing_mm[axis] * factor[axis]) / math.sqrt(8 * math.log(2))
        reach = math.ceil(3 * sigma)
        kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
        shape, padding = [2, 1, 1, 1, 1], [0, 0, 0]
        shape[2 + axis], padding[axis] = len(kernel), reach
        weight = (kernel / kernel.sum()).reshape(1, *shape[1:]).expand(shape)
        coarse = torch.nn.functional.conv3d(coarse, weight, padding=padding, groups=2)
    ratio = (coarse[:, :1] / coarse[:, 1:].clamp_min(1e-12)).clamp(0.5, 2.0)
    ratio = torch.where(coarse[:, 1:] > 0, ratio, torch.ones(()))
    fine = torch.nn.functional.interpolate(ratio, size=image.shape, mode="trilinear")
    return fine[0, 0]
