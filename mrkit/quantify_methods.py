"""Methods of `quantify`: from samples to maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from torch import Tensor

from mrcore.grid import Grid
from mrcore.nets import Denoise
from mrcore.nets_files import Denoiser, shipped_denoiser
from mrcore.solve import Solution
from recon.baselines import LlrSettings, LrtvSettings, locally_low_rank, lrtv, subspace_cg, svd_mrf
from recon.denoiser import sliced_denoiser
from recon.dictionary import Dictionary
from recon.encoding import Encoding
from recon.maps import Maps, maps_of
from recon.mri2qmap import Mri2QmapSettings, mri2qmap

_LIKE_AXES = 1.5
"""Voxels whose sides differ by less are denoised in slices across all three axes, others across the longest side."""


@dataclass(frozen=True, eq=False)
class Task:
    """What a method is given: samples (C, N), their encoding, dictionary, mask (X, Y, Z, bool), denoiser and seed."""

    encoding: Encoding
    samples: Tensor
    dictionary: Dictionary
    mask: Tensor
    denoiser: Denoise
    seed: int


@dataclass(frozen=True)
class Method:
    """A method: how it is called, its `settings` (a dataclass or None), how it solves, and what its history holds.

    `is_limited`: the number of steps is part of the method, not a failure to settle.
    """

    title: str
    settings: object
    solve: Callable[[Task], tuple[Maps, Solution]]
    history_of: str
    is_limited: bool = False


@dataclass(frozen=True)
class LeastSquaresSettings:
    """Number of conjugate-gradient steps, which regularise by being few."""

    n_iter: int = 15


def gridding() -> Method:
    """Return the density-compensated adjoint: no inversion, aliasing remains."""

    def coefficients(task: Task) -> Solution:
        return Solution(svd_mrf(task.encoding, task.samples), True, 1, (), "one step")

    return Method("SVD-MRF", None, _matched(coefficients), "", is_limited=True)


def least_squares(settings: LeastSquaresSettings | None = None) -> Method:
    """Return least squares by conjugate gradients."""
    chosen = settings or LeastSquaresSettings()
    solve = _matched(lambda task: subspace_cg(task.encoding, task.samples, chosen.n_iter))
    return Method("Subspace CG", chosen, solve, "relative residual", is_limited=True)


def total_variation(settings: LrtvSettings | None = None) -> Method:
    """Return least squares with the joint total variation of the components."""
    chosen = settings or LrtvSettings()
    return Method("LRTV", chosen, _matched(lambda task: lrtv(task.encoding, task.samples, chosen)), "relative step")


def low_rank(settings: LlrSettings | None = None) -> Method:
    """Return least squares with locally low rank; its blocks are drawn by the seed of the task."""
    chosen = settings or LlrSettings()
    solve = _matched(lambda task: locally_low_rank(task.encoding, task.samples, replace(chosen, seed=task.seed)))
    return Method("Locally low rank", chosen, solve, "relative step")


def denoised_contrasts(settings: Mri2QmapSettings | None = None) -> Method:
    """Return MRI2Qmap: data and maps agree with each other and with denoised weighted images."""
    chosen = settings or Mri2QmapSettings()

    def solve(task: Task) -> tuple[Maps, Solution]:
        done = mri2qmap(task.encoding, task.samples, task.dictionary, task.denoiser, chosen, task.mask)
        return done.maps, done.solution

    return Method("MRI2Qmap", chosen, solve, "left of the data, relative", is_limited=True)


def usual_denoiser(grid: Grid, net: Denoiser | None = None) -> Denoise:
    """Return a 2-D net, by default the one that comes with mrkit, over the slices that suit the voxels of `grid`."""
    sides = np.array(grid.spacing_mm)
    axes = (0, 1, 2) if sides.max() < _LIKE_AXES * sides.min() else (int(sides.argmax()),)
    return sliced_denoiser(net or _shipped(), axes)


@cache
def _shipped() -> Denoiser:
    return shipped_denoiser(2)


def _matched(coefficients: Callable[[Task], Solution]) -> Callable[[Task], tuple[Maps, Solution]]:
    """Return the method that matches, voxel by voxel, the coefficients that were found without a dictionary."""

    def solve(task: Task) -> tuple[Maps, Solution]:
        solution = coefficients(task)
        return maps_of(task.dictionary, solution.x, task.mask), solution

    return solve


METHODS: dict[str, Method] = {
    "mri2qmap": denoised_contrasts(),
    "cg": least_squares(),
    "lrtv": total_variation(),
    "llr": low_rank(),
    "svd": gridding(),
}
"""With the settings that serve most data, by the names of the command line; the first is the usual one."""
DEFAULT_METHOD = "mri2qmap"
