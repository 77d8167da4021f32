"""How far super-resolved images can be trusted: their sd, what the scans do not determine, residuals, seeds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inr.scans.heldout import Part, hide
from inr.trust.ensemble import Ensemble, FitOnce, HeldOut, Whiteness, ensemble, whiteness
from inr.trust.gradients import gradient_sd, smoothed
from inr.trust.null_space import hidden_excess, joint_view, null_component, posterior_samples, posterior_sd
from mrcore.data.brief import Brief
from mrcore.data.volume import Volume
from mrcore.spatial.cropping import crop_to
from mrkit.progress import stages
from mrkit.superresolution.fitting import brain_masks
from mrkit.superresolution.lattice import on_scan
from mrkit.superresolution.prepare import Prepared

N_SEEDS = 2
N_SAMPLES = 4
POOLED_MM = 1.5
"""Sd of the Gaussian over which the variance of few samples is pooled."""
MAX_ITER = 60

KeepMember = Callable[[str, Callable[[], Tensor]], Tensor]
"""From the name of a member and a function that fits it to its images; what was kept is not fitted again."""


@dataclass(frozen=True, eq=False, repr=False)
class Trust(Brief):
    """What an ensemble and the forward model say of the images.

    Attributes:
        sds: one a contrast, in units of its scan, on the output grid: spread of the ensemble, and what the scans leave
            open times its `null_scales`, in quadrature.
        null_parts: the part of each image that its scans cannot see, in units of the scan; prior and field put it
            there.
        held_out: how scan voxels were predicted that the members had not seen.
        null_scales: factor, at least 1, that lets what the scans of a contrast leave open explain, beside noise and
            spread, the errors of voxels held out from them.
        n_members: fits, in pairs that differ by their seed only.
        seed_variance: mean over the brain of the variance between the members of a pair, relative to WM = 1.
    """

    sds: tuple[Volume, ...]
    null_parts: tuple[Volume, ...]
    held_out: HeldOut
    null_scales: tuple[float, ...]
    n_members: int
    seed_variance: float

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of these figures."""
        held = self.held_out
        widened = ", ".join(f"{scale:.2f}" for scale in self.null_scales)
        return (
            f"uncertainty: {self.n_members} fits; {held.n_voxels} held-out scan voxels were predicted within "
            f"{held.rms:.2f} noise sd, by cubic interpolation within {held.rms_cubic:.2f}; variance over seeds "
            f"{self.seed_variance:.1e} (WM = 1)",
            "uncertainty: the sd of what the scan does not show assumes edges as strong as in the scan's own plane, "
            "where the image has them, and a power spectrum that falls with the fourth power of the frequency; it was "
            f"then widened by {widened}, by which held-out voxels were missed",
        )


def trust(ready: Prepared, images: Tensor, fit_once: FitOnce, n_members: int, seed: int) -> Trust:
    """Fit `n_members` (even, at least 2) to parts of the scans and say how far `images` (C, X, Y, Z) can be trusted.

    `fit_once` is what made the images, of what a member may see; they have WM = 1. Nothing here knows of a truth.
    """
    masks = brain_masks(ready)
    n_folds = max(1, n_members // N_SEEDS)
    with stages(n_folds * N_SEEDS, "member") as begin:

        def announced(seen: Part) -> Tensor:
            begin("fitting again, to a part of the scan")
            return fit_once(seen)

        spacing_mm = ready.scans[0].grid.spacing_mm
        found = ensemble(ready.data, spacing_mm, masks, announced, seed, n_folds, N_SEEDS)
    sds, unseen, scales = [], [], []
    for contrast, image in enumerate(images):
        sd, scale = _total_sd(ready, image, contrast, found, masks, seed)
        operator, noise_sd = joint_view(ready.data.views(), contrast)
        # A whole image, not its detail, is taken apart: its own level is its prior sd.
        hidden = null_component(operator, image, noise_sd, 1.0, MAX_ITER)
        sds.append(_on_output(ready, sd * ready.foreground, contrast))
        unseen.append(_on_output(ready, hidden * ready.foreground, contrast))
        scales.append(scale)
    variance = float(found.seed_variance[:, ready.tissues.mask].mean())
    return Trust(tuple(sds), tuple(unseen), found.held_out, tuple(scales), found.n_members, variance)


def kept_members(fit_once: FitOnce, keep: KeepMember | None) -> FitOnce:
    """Return `fit_once` that fits no member again that `keep` has."""
    if keep is None:
        return fit_once

    def fitted(seen: Part) -> Tensor:
        first_hidden = int(seen.held_out[0].reshape(-1).nonzero()[0])
        return keep(f"hidden{first_hidden}_seed{seen.seed}", lambda: fit_once(seen))

    return fitted


def residual_whiteness(residual_z: Volume, mask: Volume) -> Whiteness | None:
    """Measure residuals on the scan's grid over a brain mask (1 inside) on any grid; None where it is too small."""
    inside = on_scan(mask, residual_z)
    if int(inside.sum()) < 100 or not float(residual_z.data[inside].std()) > 0:
        return None
    return whiteness(residual_z.data, inside)


def _total_sd(
    ready: Prepared, image: Tensor, contrast: int, found: Ensemble, masks: list[Tensor], seed: int
) -> tuple[Tensor, float]:
    """Return the sd on the lattice, and the factor that what the scans leave open was widened by."""
    spacing, lead = ready.lattice.spacing_mm, ready.lead(contrast)
    views = ready.data.views()
    width = gradient_sd(
        image,
        ready.tissues.mask,
        spacing,
        views[lead].operator,
        views[lead].scan,
        masks[lead],
        ready.scans[lead].grid.spacing_mm,
        views[lead].noise_sd,
    )
    operator, noise_sd = joint_view(views, contrast)
    unseen = posterior_sd(operator, noise_sd, spacing, seed, N_SAMPLES, width, MAX_ITER)
    seen = hide(ready.data, ready.scans[0].grid.spacing_mm, fold=0, seed=seed)
    of_contrast = [n for n, view in enumerate(views) if view.contrast == contrast]
    tested = [views[n].counted(seen.held_out[n] & masks[n]) for n in of_contrast]
    part, _ = joint_view(seen.data.views(), contrast)
    samples = posterior_samples(part, noise_sd, spacing, seed, N_SAMPLES, width, MAX_ITER)
    at = tested[0] if tuple(operator.shape_out) == tuple(tested[0].shape) else torch.cat([t.flatten() for t in tested])
    expected = hidden_excess(samples, operator, at, noise_sd)
    scale = math.sqrt(max(1.0, found.by_contrast[contrast].excess / expected))
    # What all fits get wrong alike is in the second term; so their spread counts as it is.
    own = (1 + 1 / found.n_members) * found.spread[contrast].square()
    return torch.sqrt(own + smoothed((scale * unseen).square(), spacing, POOLED_MM)), scale


def _on_output(ready: Prepared, values: Tensor, contrast: int) -> Volume:
    return crop_to(Volume(values * ready.scales[contrast], ready.lattice), ready.output_grid)
