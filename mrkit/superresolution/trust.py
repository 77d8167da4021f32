"""How far a super-resolved image can be trusted: its sd, what the scan does not determine, residuals, seeds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inr.scans.heldout import Split, split
from inr.trust.ensemble import Ensemble, FitOnce, HeldOut, Whiteness, ensemble, whiteness
from inr.trust.gradients import gradient_sd, smoothed
from inr.trust.null_space import hidden_excess, null_component, posterior_samples, posterior_sd
from mrcore.data.volume import Volume
from mrcore.spatial.cropping import inner
from mrkit.progress import stages
from mrkit.superresolution.lattice import on_scan
from mrkit.superresolution.prepare import PreparedScan

N_SEEDS = 2
N_SAMPLES = 4
POOLED_MM = 1.5
"""Sd of the Gaussian over which the variance of few samples is pooled."""
MAX_ITER = 60

KeepMember = Callable[[str, Callable[[], Tensor]], Tensor]
"""From the name of a member and a function that fits it to its image; what was kept is not fitted again."""


@dataclass(frozen=True, eq=False)
class Trust:
    """What an ensemble and the forward model say of one image.

    Attributes:
        sd: of the image, in units of the scan, on the output grid: spread of the ensemble, and what the scan leaves
            open times `null_scale`, in quadrature.
        null_part: the part of the image that the scan cannot see, in units of the scan; prior and field put it there.
        held_out: how scan voxels were predicted that the members had not seen.
        null_scale: factor, at least 1, that lets what the scan leaves open explain, beside noise and spread, the errors
            of voxels held out from it.
        n_members: fits, in pairs that differ by their seed only.
        seed_variance: mean over the brain of the variance between the members of a pair, relative to WM = 1.
    """

    sd: Volume
    null_part: Volume
    held_out: HeldOut
    null_scale: float
    n_members: int
    seed_variance: float

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of these figures."""
        held = self.held_out
        return (
            f"uncertainty: {self.n_members} fits; {held.n_voxels} held-out scan voxels were predicted within "
            f"{held.rms:.2f} noise sd, by cubic interpolation within {held.rms_cubic:.2f}; variance over seeds "
            f"{self.seed_variance:.1e} (WM = 1)",
            "uncertainty: the sd of what the scan does not show assumes edges as strong as in the scan's own plane, "
            "where the image has them, and a power spectrum that falls with the fourth power of the frequency; it was "
            f"then widened by {self.null_scale:.2f}, by which held-out voxels were missed",
        )


def trust(ready: PreparedScan, image: Tensor, fit_once: FitOnce, n_members: int, seed: int) -> Trust:
    """Fit `n_members` (even, at least 2) to parts of the scan and say how far `image` (X, Y, Z; WM = 1) can be trusted.

    `fit_once` is what made the image, of what a member may see. Nothing here knows of a truth.
    """
    brain = ready.tissues.mask
    of_scan = on_scan(Volume(brain.float(), ready.lattice), ready.scan)
    n_folds = max(1, n_members // N_SEEDS)
    with stages(n_folds * N_SEEDS, "member") as begin:

        def announced(seen: Split) -> Tensor:
            begin("fitting again, to a part of the scan")
            return fit_once(seen)

        found = ensemble(
            ready.operator,
            ready.scan.data,
            ready.scan.grid.spacing_mm,
            ready.noise_sd,
            of_scan,
            announced,
            seed,
            n_folds,
            N_SEEDS,
        )
    sd, null_scale = _total_sd(ready, image, found, of_scan, seed)
    # A whole image, not its detail, is taken apart: its own level is its prior sd.
    unseen = null_component(ready.operator, image, ready.noise_sd, 1.0, MAX_ITER) * ready.foreground
    return Trust(
        _on_output(ready, sd * ready.foreground),
        _on_output(ready, unseen),
        found.held_out,
        null_scale,
        found.n_members,
        float(found.seed_variance[brain].mean()),
    )


def kept_members(fit_once: FitOnce, keep: KeepMember | None) -> FitOnce:
    """Return `fit_once` that fits no member again that `keep` has."""
    if keep is None:
        return fit_once

    def fitted(seen: Split) -> Tensor:
        first_hidden = int(seen.held_out.reshape(-1).nonzero()[0])
        return keep(f"hidden{first_hidden}_seed{seen.seed}", lambda: fit_once(seen))

    return fitted


def residual_whiteness(residual_z: Volume, mask: Volume) -> Whiteness | None:
    """Measure residuals on the scan's grid over a brain mask (1 inside) on any grid; None where it is too small."""
    inside = on_scan(mask, residual_z)
    if int(inside.sum()) < 100 or not float(residual_z.data[inside].std()) > 0:
        return None
    return whiteness(residual_z.data, inside)


def _total_sd(ready: PreparedScan, image: Tensor, found: Ensemble, of_scan: Tensor, seed: int) -> tuple[Tensor, float]:
    """Return the sd on the lattice, and the factor that what the scan leaves open was widened by."""
    spacing, scan, noise_sd = ready.lattice.spacing_mm, ready.scan, ready.noise_sd
    width = gradient_sd(
        image,
        ready.tissues.mask,
        spacing,
        ready.operator,
        scan.data,
        of_scan,
        scan.grid.spacing_mm,
        noise_sd,
    )
    unseen = posterior_sd(ready.operator, noise_sd, spacing, seed, N_SAMPLES, width, MAX_ITER)
    seen = split(ready.operator, scan.data, scan.grid.spacing_mm, fold=0, seed=seed)
    tested = seen.held_out & of_scan
    samples = posterior_samples(seen.operator, noise_sd, spacing, seed, N_SAMPLES, width, MAX_ITER)
    expected = hidden_excess(samples, ready.operator, tested, noise_sd)
    scale = math.sqrt(max(1.0, found.held_out.excess / expected))
    # What all fits get wrong alike is in the second term; so their spread counts as it is.
    own = (1 + 1 / found.n_members) * found.spread.square()
    return torch.sqrt(own + smoothed((scale * unseen).square(), spacing, POOLED_MM)), scale


def _on_output(ready: PreparedScan, values: Tensor) -> Volume:
    return inner(Volume(values * ready.scale, ready.lattice), ready.output_grid)
