"""All methods on a user's own scans, judged by what needs no truth."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inr.fitting.fit import FitSettings
from inr.fitting.methods import METHODS
from inr.fitting.prior import Prior
from inr.fitting.tv_hessian import TvHessianSettings, for_noise, tv_hessian
from inr.hulfsynth import HulfSynthSettings, fit_hulfsynth
from inr.scans.heldout import Part, hide
from inr.scans.single import OneScan
from inr.scans.stacks import Stacks
from inr.trust.ensemble import Whiteness, whiteness
from inr.voxels import TvSettings, cubic, huber_tv, trilinear
from mrcore.data.brief import Brief
from mrcore.data.volume import TissueMap, Volume
from mrcore.forward import predict
from mrcore.metrics.overlap import CORE_PROBABILITY, wm_gm_contrast
from mrcore.noise import chi_moments, residual_z
from mrcore.spatial.cropping import crop_to
from mrcore.spatial.resampling import resample
from mrkit.progress import stages
from mrkit.superresolution.fitting import CPU, FitPlan, brain_masks, fit_data, part_start
from mrkit.superresolution.prepare import Prepared
from mrkit.superresolution.trust import KeepMember

FOLD = 0
HULFSYNTH_STEPS = 100
"""Of the published 15,000: a start of it, which its name states."""
ABOUT: Mapping[str, str] = {
    "trilinear": "Linear interpolation of the first scan of each contrast.",
    "cubic": "Cubic interpolation of the first scan of each contrast: no model, no prior.",
    "Tikhonov": "Least squares through the forward model with smooth gradients.",
    "Huber-TV": "Total variation on voxels through the forward model.",
    "TV + Hessian": "Total variation of image and gradient on voxels through the forward model.",
}


@dataclass(frozen=True, eq=False)
class Scene:
    """Scans to be fitted, or a part of them: what `ready` holds, with the data and the start of that part.

    `filled` are the scans with what is hidden interpolated, where the data place them. What is iterated runs on
    `device`; all is held on the CPU.
    """

    ready: Prepared
    data: OneScan | Stacks
    filled: tuple[Volume, ...]
    start: Tensor
    is_whole: bool
    device: torch.device = CPU

    @property
    def first_scans(self) -> list[Volume]:
        """The first scan of each contrast."""
        return [self.filled[self.ready.lead(contrast)] for contrast in range(len(self.ready.contrasts))]


Method = Callable[[Scene], Tensor]
"""From scans, or a part of them, to the images (C, X, Y, Z) on the lattice, with WM = 1."""


@dataclass(frozen=True, eq=False)
class Judged:
    """One method: its `image` of the first contrast (output grid, units of the scan) and figures that need no truth.

    `held_out` is the root mean square error of voxels that it had not seen, in noise sd, over all scans; `residual` is
    that of the first scan of the first contrast; `michelson` and `cnr` of its image are None where a tissue has no
    core. `seconds` are those of the whole images; None where they were kept from an earlier run.
    """

    name: str
    text: str
    image: Volume
    held_out: float
    residual: Whiteness
    michelson: float | None
    cnr: float | None
    seconds: float | None


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Brief):
    """All methods in the order of the table, and the error of interpolating the held-out voxels, in noise sd."""

    judged: tuple[Judged, ...]
    rms_cubic: float
    n_voxels: int


def compare_methods(
    ready: Prepared,
    settings: FitSettings,
    seed: int,
    priors: Mapping[str, Prior],
    tissues: TissueMap,
    keep: KeepMember | None = None,
    device: torch.device = CPU,
) -> Comparison:
    """Run every method on the scans and on a part of them, and judge them.

    Args:
        ready: the scans.
        settings: of the default fit; its weight of total variation serves all methods that have one.
        seed: of all fields.
        priors: by name, each added to the default fit.
        tissues: on the lattice, whose cores contrast is measured in.
        keep: what keeps finished images, so that an interrupted comparison goes on where it was.
        device: where methods run; `priors` work on it.
    """
    hidden = hide(ready.data, ready.scans[0].grid.spacing_mm, FOLD, seed)
    placed = tuple(ready.placed(number) for number in range(len(ready.scans)))
    whole = Scene(ready, ready.data, placed, ready.start, True, device)
    filled = tuple(Volume(data, scan.grid) for data, scan in zip(hidden.filled, placed, strict=True))
    part = Scene(ready, hidden.data, filled, part_start(ready, hidden), False, device)
    judge = _Judge(ready, hidden, brain_masks(ready), tissues)
    judged = []
    chosen = methods(ready, settings, seed, priors)
    with stages(len(chosen), "method") as begin:
        for name, (text, method) in chosen.items():
            begin(f"comparing: {name}")
            clock = _Clock(method)
            images, unseen = (_kept(keep, f"{name} {which}", scene, clock) for which, scene in _both(whole, part))
            judged.append(judge.judged(name, text, images, unseen, clock.first))
    return Comparison(tuple(judged), judge.rms_cubic(), judge.n_voxels)


def methods(
    ready: Prepared, settings: FitSettings, seed: int, priors: Mapping[str, Prior]
) -> dict[str, tuple[str, Method]]:
    """Return all methods by name, with a sentence on each; HULFSynth, which has no poses, takes one scan."""
    weight = settings.tv_weight
    out: dict[str, tuple[str, Method]] = {
        "trilinear": (ABOUT["trilinear"], lambda s: _interpolated(s, trilinear)),
        "cubic": (ABOUT["cubic"], lambda s: _interpolated(s, cubic)),
        "Tikhonov": (ABOUT["Tikhonov"], lambda s: s.start),
        "Huber-TV": (ABOUT["Huber-TV"], lambda s: _huber_tv(s, weight)),
        "TV + Hessian": (ABOUT["TV + Hessian"], _tv_hessian),
    }
    if len(ready.scans) == 1:
        text = f"The published configuration, {HULFSYNTH_STEPS} of its 15,000 steps; no point spread."
        out[f"HULFSynth, {HULFSYNTH_STEPS} steps"] = (text, lambda s: _hulfsynth(s, seed))
    for name, its in METHODS.items():
        chosen = settings if name == "default" else replace(its, tv_weight=weight)
        out[f"INR, {name}"] = ("A field fitted through the forward model.", _fitted(chosen, seed, None))
    for name, prior in priors.items():
        out[f"INR, {name}"] = (f"The default field with the prior: {name}.", _fitted(settings, seed, prior))
    return out


def contrast_of(image: Tensor, tissues: TissueMap) -> tuple[float | None, float | None]:
    """Return Michelson contrast and CNR of WM against GM in their cores; None where one has too few voxels.

    The noise of the CNR is the root mean square of both tissues' sd: texture and bias count as noise.
    """
    cores = [tissues.of(name) > CORE_PROBABILITY for name in ("WM", "GM")]
    if min(int(core.sum()) for core in cores) < 2:
        return None, None
    spread = float(torch.stack([image[core].var() for core in cores]).mean().sqrt())
    found = wm_gm_contrast(image, tissues, spread if spread > 0 else None)
    return found.michelson, found.cnr


def _both(whole: Scene, part: Scene) -> tuple[tuple[str, Scene], tuple[str, Scene]]:
    return ("whole", whole), ("part", part)


class _Clock:
    """A method that remembers the seconds of its first run on the whole."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.first: float | None = None

    def __call__(self, scene: Scene) -> Tensor:
        begin = time.perf_counter()
        images = self.method(scene)
        if self.first is None and scene.is_whole:
            self.first = time.perf_counter() - begin
        return images


def _kept(keep: KeepMember | None, name: str, scene: Scene, method: Method) -> Tensor:
    if keep is None:
        return method(scene)
    return keep(f"compare_{name.replace(' ', '_').replace(',', '')}", lambda: method(scene))


class _Judge:
    """What all methods are judged by: voxels of the brain that were hidden, and residuals."""

    def __init__(self, ready: Prepared, hidden: Part, masks: list[Tensor], tissues: TissueMap) -> None:
        self.ready, self.hidden, self.masks, self.tissues = ready, hidden, masks, tissues
        self.views = ready.data.views()
        self.tested = [
            view.counted(at & mask) for at, mask, view in zip(hidden.held_out, masks, self.views, strict=True)
        ]
        self.n_voxels = sum(int(at.sum()) for at in self.tested)

    def rms_cubic(self) -> float:
        """Return the error of the hidden voxels when they are interpolated, in noise sd."""
        parts = zip(self.views, self.hidden.filled, self.tested, strict=True)
        return self._rms([(view.scan - filled)[at] for view, filled, at in parts])

    def judged(self, name: str, text: str, images: Tensor, unseen: Tensor, seconds: float | None) -> Judged:
        """Judge a method by its `images` (C, X, Y, Z) of all voxels, and by those of the part, `unseen`."""
        ready, lead = self.ready, self.ready.lead(0)
        first = self.views[lead]
        z = residual_z(first.scan, predict(first.operator, images[0]), first.noise_sd)
        residual = whiteness(z, first.counted(self.masks[lead]))
        errors = []
        for view, at in zip(self.views, self.tested, strict=True):
            expected, _ = chi_moments(predict(view.operator, unseen[view.contrast])[at], view.noise_sd)
            errors.append(view.scan[at] - expected)
        michelson, cnr = contrast_of(images[0], self.tissues)
        shown = crop_to(Volume(images[0] * ready.scales[0], ready.lattice), ready.output_grid)
        return Judged(name, text, shown, self._rms(errors), residual, michelson, cnr, seconds)

    def _rms(self, errors: list[Tensor]) -> float:
        """Return the root mean square of errors (n) of each scan, each in its own noise."""
        noise_sd = self.views[0].noise_sd
        relative = [error / (view.noise_sd / noise_sd) for error, view in zip(errors, self.views, strict=True)]
        return float(torch.cat(relative).square().mean().sqrt()) / noise_sd


def _interpolated(scene: Scene, interpolate: Callable[..., Volume]) -> Tensor:
    return torch.stack([interpolate(scan, scene.ready.lattice).data for scan in scene.first_scans])


def _huber_tv(scene: Scene, weight: float) -> Tensor:
    data, start, spacing = scene.data.to(scene.device), scene.start.to(scene.device), scene.ready.lattice.spacing_mm
    if isinstance(data, OneScan):
        found = huber_tv(data.model, data.scan, data.noise_sd, start[0], spacing, TvSettings(weight=weight))
        return found.x[None].cpu()
    # As in a fit, where contrasts share their edges.
    settings = TvHessianSettings(math.sqrt(data.n_contrasts) * weight, hessian_weight=0.0)
    return tv_hessian(data, start, spacing, settings).x.cpu()


def _tv_hessian(scene: Scene) -> Tensor:
    data, start, spacing = scene.data.to(scene.device), scene.start.to(scene.device), scene.ready.lattice.spacing_mm
    settings = for_noise(TvHessianSettings(), scene.data.views()[scene.ready.lead(0)].noise_sd)
    return tv_hessian(data, start, spacing, settings).x.cpu()


def _hulfsynth(scene: Scene, seed: int) -> Tensor:
    ready, scan = scene.ready, scene.filled[0]
    prob = [resample(Volume(p, ready.lattice), scan.grid, order=1).data for p in ready.tissues.prob]
    tissues = TissueMap(torch.stack(prob).clamp(0, 1), ready.tissues.names, scan.grid)
    settings = HulfSynthSettings(n_steps=HULFSYNTH_STEPS)
    return fit_hulfsynth(scan, tissues, ready.lattice, seed, settings).image.data[None]


def _fitted(settings: FitSettings, seed: int, prior: Prior | None) -> Method:
    def run(scene: Scene) -> Tensor:
        plan = FitPlan(settings, prior, device=scene.device)
        return fit_data(scene.ready, scene.data, scene.start, seed, plan, resegment=scene.is_whole).images

    return run
