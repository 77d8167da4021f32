"""The methods that are compared: a function each, and a line in `METHODS`; a further one recomputes no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inr.fitting.fit import FitSettings
from inr.fitting.methods import METHODS as FIELDS
from inr.fitting.prior import Prior
from inr.fitting.tv_hessian import TvHessianSettings, for_noise, tv_hessian
from inr.hulfsynth import HulfSynthSettings, fit_hulfsynth
from inr.scans.stacks import Stacks, tikhonov_of
from inr.voxels import cubic, tikhonov, trilinear
from mrcore.data.volume import TissueMap, Volume
from mrcore.spatial.resampling import resample
from mrkit.anatomy.atlas import atlas_prior, atlas_segmenter
from mrkit.anatomy.template import load_template
from mrkit.superresolution.fitting import (
    FitPlan,
    align_guess,
    chosen_weight,
    denoiser_prior,
    fit_prepared,
    started_from,
)
from superresolution.scene import Scene

DEFAULT, TV, TV_HESSIAN, CUBIC = "default", "Huber-TV", "TV + Hessian", "cubic"
HULFSYNTH_STEPS, HULFSYNTH_RATE = 150, 1e-3
"""Of the published 15,000 steps at 5e-5: what two cores do in some minutes.

They leave the image constant, and so do all 15,000 at the published rate with a hundredth of the points (430 CPU
seconds): such a row shows what the method costs and is no verdict on its images at the published number of points.
"""


@dataclass(frozen=True, eq=False)
class Result:
    """What a method made of a scene: an image on the output grid in units of the first scan, own tissues if any."""

    image: Volume
    settled: bool | None = None
    tissues: TissueMap | None = None
    note: str = ""


@dataclass(frozen=True)
class Method:
    """A method by name. `key`: of interest in every condition; `prior`: what it knows beside the scans of the person.

    `stacks`: it takes more than one scan; the others see the first only, and are left out where there are three.
    """

    name: str
    run: Callable[[Scene, int], Result]
    key: bool = False
    stacks: bool = False
    prior: str = ""


def by_trilinear(scene: Scene, seed: int) -> Result:
    """Interpolate the first scan linearly."""
    return Result(scene.rendered(trilinear(scene.first, scene.lattice).data))


def by_cubic(scene: Scene, seed: int) -> Result:
    """Interpolate the first scan by cubic splines."""
    return Result(scene.rendered(cubic(scene.first, scene.lattice).data))


def by_tikhonov(scene: Scene, seed: int) -> Result:
    """Solve for a smooth image by conjugate gradients."""
    if isinstance(scene.data, Stacks):
        found = tikhonov_of(scene.data)
        return Result(scene.rendered(found.x[0].clamp_min(0)), found.converged)
    begin, one = cubic(scene.first, scene.lattice).data, scene.data
    found = tikhonov(one.operator, one.scan, one.noise_sd, begin, scene.lattice.spacing_mm)
    return Result(scene.rendered(found.x.clamp_min(0)), found.converged)


def by_tv(scene: Scene, seed: int) -> Result:
    """Huber-TV over voxels; the weight follows the noise and was set without these brains."""
    return _varied(scene, TvHessianSettings(weight=1.5, hessian_weight=0.0))


def by_tv_hessian(scene: Scene, seed: int) -> Result:
    """Huber-TV and Hessian over voxels, weights as for Huber-TV."""
    return _varied(scene, TvHessianSettings())


def by_default(scene: Scene, seed: int) -> Result:
    """Fit the default field as the verb does: intensity and tissues jointly, without anatomical priors."""
    return _fitted(scene, seed, _default(scene))


def by_intensity_alone(scene: Scene, seed: int) -> Result:
    """Fit the default field without its tissue term: what the joint estimation is worth."""
    return _fitted(scene, seed, replace(_default(scene), tissue_weight=0.0))


def by_denoiser(scene: Scene, seed: int) -> Result:
    """Fit the default field with the shipped denoiser as plug-and-play prior."""
    return _fitted(scene, seed, FitSettings(), denoiser_prior())


def by_template_start(scene: Scene, seed: int) -> Result:
    """Fit the default field from the template, laid over the scan."""
    ready = scene.prepared
    guess, note = align_guess(ready, load_template().t1)
    start = started_from(guess, ready.data, ready.start, ready.lattice)
    return _fitted(replace(scene, prepared=replace(ready, start=start)), seed, _default(scene), note=note)


def by_atlas(scene: Scene, seed: int) -> Result:
    """Fit the default field with tissues that know the template's, laid over the subject."""
    mask = scene.tissues.mask
    segmenter = atlas_segmenter(atlas_prior(Volume(scene.start[0], scene.lattice), mask))

    def resegment(image: Tensor) -> Tensor:
        return segmenter(Volume(image, scene.lattice), mask).tissues.prob

    tissues = TissueMap(resegment(scene.start[0]), scene.tissues.names, scene.lattice)
    return _fitted(
        replace(scene, prepared=replace(scene.prepared, tissues=tissues, resegment=resegment)), seed, _default(scene)
    )


def by_siren(scene: Scene, seed: int) -> Result:
    """Fit a SIREN with the same losses."""
    return _fitted(scene, seed, FIELDS["SIREN"])


def by_gabor(scene: Scene, seed: int) -> Result:
    """Fit a pure Gabor MLP with the same losses."""
    return _fitted(scene, seed, FIELDS["Gabor"])


def by_hulfsynth(scene: Scene, seed: int) -> Result:
    """Fit HULFSynth's network with its own losses: fewer and longer steps than published, as far as affordable."""
    grid, names = scene.first.grid, scene.tissues.names
    maps = [resample(Volume(p, scene.lattice), grid, order=1).data.clamp(0, 1) for p in scene.tissues.prob]
    settings = HulfSynthSettings(n_steps=HULFSYNTH_STEPS, learning_rate=HULFSYNTH_RATE)
    found = fit_hulfsynth(scene.first, TissueMap(torch.stack(maps), names, grid), scene.lattice, seed, settings)
    prob = scene.rendered_tissues(found.tissues.prob)
    note = f"{HULFSYNTH_STEPS} steps at {HULFSYNTH_RATE:g} for 15000 at 5e-5; {found.seconds_per_step:.3g} s each"
    return Result(scene.rendered(found.image.data), found.solution.converged, prob, note)


def _varied(scene: Scene, settings: TvHessianSettings) -> Result:
    chosen = for_noise(settings, scene.noise_sd)
    found = tv_hessian(scene.data, scene.start, scene.lattice.spacing_mm, chosen)
    return Result(scene.rendered(found.x[0]), found.converged)


def _default(scene: Scene) -> FitSettings:
    """Return the default settings; the weight of total variation is chosen by held-out voxels, as the verbs do."""
    return FitSettings(tv_weight=chosen_weight(scene.prepared).weight)


def _fitted(scene: Scene, seed: int, settings: FitSettings, prior: Prior | None = None, note: str = "") -> Result:
    found = fit_prepared(scene.prepared, seed, FitPlan(settings, prior))
    tissues = scene.rendered_tissues(found.prob)
    weight = f"weight of total variation {settings.tv_weight:.3g}" if prior is None else ""
    notes = "; ".join(filter(None, (weight, note)))
    return Result(scene.rendered(found.image), found.solution.converged, tissues, notes)


METHODS: tuple[Method, ...] = (
    Method("trilinear", by_trilinear),
    Method(CUBIC, by_cubic, key=True),
    Method("Tikhonov CG", by_tikhonov, key=True, stacks=True),
    Method(TV, by_tv, key=True, stacks=True),
    Method(TV_HESSIAN, by_tv_hessian, key=True, stacks=True),
    Method(DEFAULT, by_default, key=True, stacks=True),
    Method("default + denoiser", by_denoiser, key=True, stacks=True, prior="denoiser"),
    Method("default + atlas", by_atlas, prior="tissues of the template"),
    Method("default, template start", by_template_start, prior="image of the template"),
    Method("default, intensity alone", by_intensity_alone),
    Method("SIREN", by_siren),
    Method("Gabor", by_gabor),
    Method("HULFSynth", by_hulfsynth),
)
