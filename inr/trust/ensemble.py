"""How far a fit can be trusted: calibrated ensembles, and whether its residuals are the noise that they should be.

An ensemble takes data and a function that fits a part of them, so it serves every method.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inr.scans.heldout import N_FOLDS, Part, hide
from inr.scans.single import OneScan
from inr.scans.stacks import Stacks
from mrcore.data.brief import Brief
from mrcore.data.grid import Triple
from mrcore.errors import BadInputError
from mrcore.forward import predict
from mrcore.noise import chi_moments

FitOnce = Callable[[Part], Tensor]
"""From what a fit may see to its images (C, X, Y, Z)."""


@dataclass(frozen=True)
class HeldOut:
    """How voxels were predicted that the fits had not seen, in units of the noise.

    Attributes:
        n_voxels: that were held out, inside the mask.
        rms: root mean square error; a perfect prediction has 1.
        rms_cubic: that of cubic interpolation from the same neighbours.
        sd_scale: factor that the ensemble's sd needs to explain `rms`; 0 where noise alone explains it.
        coverage_68: part of these voxels within one predicted sd, noise included; 0.683 if it is right.
        coverage_95: part within 1.96 predicted sd; 0.95 if it is right.
        excess: mean square error less that of noise and of the plain spread, in squared noise sd, at least 0: what all
            fits got wrong alike.
    """

    n_voxels: int
    rms: float
    rms_cubic: float
    sd_scale: float
    coverage_68: float
    coverage_95: float
    excess: float


@dataclass(frozen=True, eq=False, repr=False)
class Ensemble(Brief):
    """Mean, plain `spread` and calibrated `sd` (C, X, Y, Z) of the images of several fits, and held-out voxels.

    `seed_variance` (C, X, Y, Z) is the variance between fits of the same voxels with other seeds. `held_out` is that of
    all scans, `by_contrast` that of the scans of each contrast.
    """

    mean: Tensor
    spread: Tensor
    sd: Tensor
    seed_variance: Tensor
    n_members: int
    held_out: HeldOut
    by_contrast: tuple[HeldOut, ...]


def ensemble(
    data: OneScan | Stacks,
    spacing_mm: Triple,
    masks: Sequence[Tensor],
    fit_once: FitOnce,
    seed: int,
    n_folds: int = 3,
    n_seeds: int = 2,
) -> Ensemble:
    """Fit `n_folds` parts of the scans with `n_seeds` seeds each and calibrate the spread on the voxels held out.

    For a voxel of a fold the error of the mean of its fits has the variance of noise plus (scale^2 + 1 / n_seeds)
    times their spread. The scale makes the mean square of both sides equal, over all held-out voxels in the `masks`
    (bool, one of each scan's shape); `sd` is the spread of all members, scaled alike. `spacing_mm` is that of one scan
    (see `hide`).
    Held-out voxels calibrate what a scan can show. Detail that no voxel sees, all fits may get wrong alike: its
    variance is that of `inr.trust.null_space.posterior_sd`, to be added.

    Raises:
        BadInputError: too few folds or seeds, no held-out voxel in the masks, or fits without any spread.
    """
    if not 1 <= n_folds <= N_FOLDS or n_seeds < 2:
        raise BadInputError(f"an ensemble needs 1 to {N_FOLDS} folds and 2 seeds or more, got {n_folds} and {n_seeds}")
    folds = [round(f * N_FOLDS / n_folds) for f in range(n_folds)]
    images: list[Tensor] = []
    tests: list[_Test] = []
    of_seeds: list[Tensor] = []
    for fold in folds:
        parts = [hide(data, spacing_mm, fold, seed + n) for n in range(n_seeds)]
        members = [fit_once(each) for each in parts]
        tests += _tests(data, parts[0], masks, members)
        of_seeds.append(torch.stack(members).var(0))
        images += members
    stack = torch.stack(images)
    noise_sd = data.views()[0].noise_sd
    found = _calibrated(tests, noise_sd, n_seeds)
    contrasts = sorted({test.contrast for test in tests})
    each = (
        (found,)
        if len(contrasts) == 1
        else tuple(_calibrated([t for t in tests if t.contrast == c], noise_sd, n_seeds) for c in contrasts)
    )
    spread = stack.std(0)
    sd = math.sqrt(found.sd_scale**2 + 1 / len(images)) * spread
    return Ensemble(stack.mean(0), spread, sd, torch.stack(of_seeds).mean(0), len(images), found, each)


@dataclass(frozen=True, eq=False)
class _Test:
    """Held-out voxels (n) of a fold in a scan: errors of the mean and of cubic, variances of spread and of noise.

    All are in the noise of the first scan: those of a scan with twice its noise count half.
    """

    contrast: int
    error: Tensor
    error_cubic: Tensor
    spread: Tensor
    noise: Tensor


def _tests(data: OneScan | Stacks, seen: Part, masks: Sequence[Tensor], members: Sequence[Tensor]) -> list[_Test]:
    found = []
    views = data.views()
    for view, hidden, filled, mask in zip(views, seen.held_out, seen.filled, masks, strict=True):
        at = view.counted(hidden & mask)
        predictions = torch.stack([predict(view.operator, images[view.contrast])[at] for images in members])
        expected, sd = chi_moments(predictions.mean(0), view.noise_sd)
        spread = (predictions - predictions.mean(0)).square().sum(0) / (len(members) - 1)
        ratio = view.noise_sd / views[0].noise_sd
        errors = (view.scan[at] - expected) / ratio, (view.scan[at] - filled[at]) / ratio
        found.append(_Test(view.contrast, *errors, spread / ratio**2, (sd / ratio).square()))
    return found


def _calibrated(tests: Sequence[_Test], noise_sd: float, n_seeds: int) -> HeldOut:
    error, cubic, spread, noise = (
        torch.cat([getattr(t, name) for t in tests]) for name in ("error", "error_cubic", "spread", "noise")
    )
    if not len(error):
        raise BadInputError("no held-out voxel lies in the mask; give a larger mask or more folds")
    total = float(spread.mean())
    if not total > 0:
        raise BadInputError("all fits gave the same image: there is no spread to calibrate; vary their seeds")
    left = float((error.square() - noise).mean())
    scale = math.sqrt(max(0.0, left / total - 1 / n_seeds))
    z = error / (noise + (scale**2 + 1 / n_seeds) * spread).sqrt()
    return HeldOut(
        n_voxels=len(error),
        rms=float(error.square().mean().sqrt()) / noise_sd,
        rms_cubic=float(cubic.square().mean().sqrt()) / noise_sd,
        sd_scale=scale,
        coverage_68=float((z.abs() < 1).double().mean()),
        coverage_95=float((z.abs() < 1.96).double().mean()),
        excess=max(0.0, (left - (1 + 1 / n_seeds) * total) / noise_sd**2),
    )


@dataclass(frozen=True)
class Whiteness:
    """Mean, sd and autocorrelation of residuals in units of their noise: 0, 1 and 0 for a right model and noise.

    `autocorrelation` holds lags of 1, 2, ... voxels for each axis, `standard_error` that of each of them if white.
    A fit that follows the noise has an sd below 1; one that misses structure has positive correlations.
    """

    mean: float
    sd: float
    autocorrelation: tuple[tuple[float, ...], ...]
    standard_error: tuple[tuple[float, ...], ...]
    n_voxels: int

    @property
    def worst(self) -> float:
        """Largest autocorrelation in standard errors, without its sign; above 4 the residuals are not white."""
        pairs = zip(itertools.chain(*self.autocorrelation), itertools.chain(*self.standard_error), strict=True)
        return max(abs(value) / error for value, error in pairs)


def whiteness(residual_z: Tensor, mask: Tensor, n_lags: int = 3) -> Whiteness:
    """Measure residuals (X, Y, Z) in units of their noise over the voxels of `mask` (bool), along each axis.

    A lag counts pairs with both voxels in the mask; where there is none it is 0 with an infinite standard error.

    Raises:
        BadInputError: fewer than 100 voxels in the mask, or residuals that are all the same.
    """
    if int(mask.sum()) < 100:
        raise BadInputError(f"whiteness needs 100 voxels or more, the mask has {int(mask.sum())}")
    mean = float(residual_z[mask].mean())
    sd = float(residual_z[mask].std())
    if not sd > 0:
        raise BadInputError("the residuals are all the same; there is nothing to correlate")
    normal = torch.where(mask, (residual_z - mean) / sd, 0.0)
    values, errors = [], []
    for axis in range(residual_z.ndim):
        found = [_lagged(normal, mask, axis, lag) for lag in range(1, n_lags + 1)]
        values.append(tuple(v for v, _ in found))
        errors.append(tuple(e for _, e in found))
    return Whiteness(mean, sd, tuple(values), tuple(errors), int(mask.sum()))


def _lagged(normal: Tensor, mask: Tensor, axis: int, lag: int) -> tuple[float, float]:
    """Return the correlation of voxels `lag` apart and its standard error."""
    n = normal.shape[axis] - lag
    if n < 1:
        return 0.0, math.inf
    pairs = int((mask.narrow(axis, 0, n) & mask.narrow(axis, lag, n)).sum())
    if pairs == 0:
        return 0.0, math.inf
    total = float((normal.narrow(axis, 0, n) * normal.narrow(axis, lag, n)).sum())
    return total / pairs, 1 / math.sqrt(pairs)
