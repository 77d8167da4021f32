"""Methods of `quantify`: from samples to maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import cache

import numpy as np
from torch import Tensor

from mrcore.data.grid import Grid
from mrcore.denoisers.files import Denoiser, shipped_denoiser
from mrcore.denoisers.trained import sliced_denoiser, volume_denoiser
from mrcore.denoisers.unet import Denoise
from mrcore.errors import BadInputError
from mrcore.io.sidecar import finite
from mrcore.solvers import Solution, Watch, unwatched
from recon.dictionary.dictionary import Dictionary
from recon.encoding.encoding import Encoding, reweighted
from recon.methods.baselines import LlrSettings, LrtvSettings, locally_low_rank, lrtv, subspace_cg, svd_mrf
from recon.methods.maps import Maps, maps_of
from recon.methods.mri2qmap import Mri2QmapSettings, mri2qmap

_LIKE_AXES = 1.5
"""Voxels whose sides differ by less are denoised in slices across all three axes, others across the longest side."""


@dataclass(frozen=True, eq=False)
class Task:
    """What a method is given: samples (C, N), their encoding, dictionary, mask (X, Y, Z, bool), denoiser and seed.

    `density` (N,) is the density compensation, with which gridding weights in the place of the encoding's weights;
    `watch` is called after each step of an iteration.
    """

    encoding: Encoding
    density: Tensor
    samples: Tensor
    dictionary: Dictionary
    mask: Tensor
    denoiser: Denoise
    seed: int
    watch: Watch = unwatched


@dataclass(frozen=True)
class Method:
    """A method: how it is called, its `settings` (a dataclass or None), how it solves, and what its history holds.

    `n_steps`: most steps that it tells `Task.watch` of. `is_limited`: the number of steps is part of the method, not a
    failure to settle.
    """

    title: str
    settings: object
    solve: Callable[[Task], tuple[Maps, Solution]]
    history_of: str
    n_steps: int = 0
    is_limited: bool = False

    def settings_values(self) -> object:
        """Return the settings as JSON values; a TR of infinity becomes null."""
        settings = self.settings
        return finite(asdict(settings)) if is_dataclass(settings) and not isinstance(settings, type) else {}


@dataclass(frozen=True)
class LeastSquaresSettings:
    """Number of conjugate-gradient steps, which regularise by being few."""

    n_iter: int = 15


def gridding() -> Method:
    """Return the density-compensated adjoint: no inversion, aliasing remains."""

    def coefficients(task: Task) -> Solution:
        return Solution(svd_mrf(reweighted(task.encoding, task.density), task.samples), True, 1, (), "one step")

    return Method("SVD-MRF", None, _matched(coefficients), "", is_limited=True)


def least_squares(settings: LeastSquaresSettings | None = None) -> Method:
    """Return least squares by conjugate gradients."""
    chosen = settings or LeastSquaresSettings()
    solve = _matched(lambda task: subspace_cg(task.encoding, task.samples, chosen.n_iter, watch=task.watch))
    return Method("Subspace CG", chosen, solve, "relative residual", chosen.n_iter, is_limited=True)


def total_variation(settings: LrtvSettings | None = None) -> Method:
    """Return least squares with the joint total variation of the components."""
    chosen = settings or LrtvSettings()
    solve = _matched(lambda task: lrtv(task.encoding, task.samples, chosen, task.watch))
    return Method("LRTV", chosen, solve, "relative step", chosen.n_iter)


def low_rank(settings: LlrSettings | None = None) -> Method:
    """Return least squares with locally low rank; its blocks are drawn by the seed of the task."""
    chosen = settings or LlrSettings()

    def coefficients(task: Task) -> Solution:
        return locally_low_rank(task.encoding, task.samples, replace(chosen, seed=task.seed), task.watch)

    return Method("Locally low rank", chosen, _matched(coefficients), "relative step", chosen.n_iter)


def denoised_contrasts(settings: Mri2QmapSettings | None = None) -> Method:
    """Return MRI2Qmap: data and maps agree with each other and with denoised weighted images."""
    chosen = settings or Mri2QmapSettings()

    def solve(task: Task) -> tuple[Maps, Solution]:
        done = mri2qmap(task.encoding, task.samples, task.dictionary, task.denoiser, chosen, task.mask, task.watch)
        return done.maps, done.solution

    return Method("MRI2Qmap", chosen, solve, "left of the data, relative", chosen.n_iter, is_limited=True)


def usual_denoiser(grid: Grid, net: Denoiser | None = None) -> Denoise:
    """Return a net as a denoiser of images on `grid`: a 2-D one, such as mrkit's own (None), over the slices that suit.

    Raises:
        BadInputError: a 3-D net for a single slice.
    """
    if net is not None and net.net.settings.n_dims == 3:
        if min(grid.shape) == 1:
            raise BadInputError("the denoiser is 3-D, the data are one slice: give a 2-D denoiser")
        return volume_denoiser(net)
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
