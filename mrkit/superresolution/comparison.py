"""All methods on a user's own scan, judged by what needs no truth."""

from __future__ import annotations

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
from inr.scans.heldout import Split, smooth_start, split
from inr.scans.single import OneScan
from inr.trust.ensemble import Whiteness, whiteness
from inr.voxels import TvSettings, cubic, huber_tv, trilinear
from mrcore.data.volume import TissueMap, Volume
from mrcore.forward import predict
from mrcore.metrics.overlap import CORE_PROBABILITY, wm_gm_contrast
from mrcore.noise import chi_moments, residual_z
from mrcore.operators.linop import LinearOp
from mrcore.spatial.cropping import inner
from mrcore.spatial.resampling import resample
from mrkit.progress import stages
from mrkit.superresolution.fitting import CPU, FitPlan, fit_data
from mrkit.superresolution.lattice import on_scan
from mrkit.superresolution.prepare import PreparedScan
from mrkit.superresolution.trust import KeepMember

FOLD = 0
HULFSYNTH_STEPS = 100
"""Of the published 15,000: a start of it, which says so in its name."""
SAID: Mapping[str, str] = {
    "trilinear": "Linear interpolation of the scan.",
    "cubic": "Cubic interpolation of the scan: no model, no prior.",
    "Tikhonov": "Least squares through the forward model with smooth gradients.",
    "Huber-TV": "Total variation on voxels through the forward model.",
    "TV + Hessian": "Total variation of image and gradient on voxels through the forward model.",
}


@dataclass(frozen=True, eq=False)
class Scene:
    """One scan to be fitted, or a part of it: what `ready` holds, with the operator, scan and start of that part.

    What is iterated runs on `device`; all is held on the CPU.
    """

    ready: PreparedScan
    operator: LinearOp
    scan: Volume
    filled: Volume
    start: Tensor
    device: torch.device = CPU

    @property
    def data(self) -> OneScan:
        """The scan as data of a fit."""
        return OneScan(self.scan.data, self.operator, self.ready.noise_sd)


Method = Callable[[Scene], Tensor]
"""From a scan, or a part of it, to the image (X, Y, Z) on the lattice, with WM = 1."""


@dataclass(frozen=True, eq=False)
class Judged:
    """One method: its `image` (output grid, units of the scan) and figures that need no truth.

    `held_out` is the root mean square error of voxels that it had not seen, in noise sd; `michelson` and `cnr` are None
    where a tissue has no core. `seconds` are those of the whole image; None where it was kept from an earlier run.
    """

    name: str
    text: str
    image: Volume
    held_out: float
    residual: Whiteness
    michelson: float | None
    cnr: float | None
    seconds: float | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """All methods in the order of the table, and the error of interpolating the held-out voxels, in noise sd."""

    judged: tuple[Judged, ...]
    rms_cubic: float
    n_voxels: int


def compare(
    ready: PreparedScan,
    settings: FitSettings,
    seed: int,
    priors: Mapping[str, Prior],
    tissues: TissueMap,
    keep: KeepMember | None = None,
    device: torch.device = CPU,
) -> Comparison:
    """Run every method on the scan and on a part of it, and judge them.

    Args:
        ready: the scan.
        settings: of the default fit; its weight of total variation serves all methods that have one.
        seed: of all fields.
        priors: by name, each added to the default fit.
        tissues: on the lattice, whose cores contrast is measured in.
        keep: what keeps finished images, so that an interrupted comparison goes on where it was.
        device: where methods run; `priors` work on it.
    """
    whole = Scene(ready, ready.operator, ready.scan, ready.scan, ready.start, device)
    hidden = split(ready.operator, ready.scan.data, ready.scan.grid.spacing_mm, FOLD, seed)
    part = _part(ready, hidden, device)
    of_scan = on_scan(Volume(ready.tissues.mask.float(), ready.lattice), ready.scan)
    tested = hidden.held_out & of_scan
    judged = []
    chosen = methods(settings, seed, priors)
    with stages(len(chosen), "method") as begin:
        for name, (text, method) in chosen.items():
            begin(f"comparing: {name}")
            clock = _Clock(method)
            image, unseen = (_kept(keep, f"{name} {which}", scene, clock) for which, scene in _both(whole, part))
            judged.append(_judged(name, text, ready, image, unseen, tested, of_scan, tissues, clock.first))
    error = (ready.scan.data - hidden.filled)[tested]
    return Comparison(tuple(judged), _rms(error) / ready.noise_sd, int(tested.sum()))


def methods(settings: FitSettings, seed: int, priors: Mapping[str, Prior]) -> dict[str, tuple[str, Method]]:
    """Return all methods by name, with a sentence on each."""
    weight = settings.tv_weight
    out: dict[str, tuple[str, Method]] = {
        "trilinear": (SAID["trilinear"], lambda s: trilinear(s.filled, s.ready.lattice).data),
        "cubic": (SAID["cubic"], lambda s: cubic(s.filled, s.ready.lattice).data),
        "Tikhonov": (SAID["Tikhonov"], lambda s: s.start),
        "Huber-TV": (SAID["Huber-TV"], lambda s: _huber_tv(s, weight)),
        "TV + Hessian": (SAID["TV + Hessian"], _tv_hessian),
        f"HULFSynth, {HULFSYNTH_STEPS} steps": (
            f"The published configuration, {HULFSYNTH_STEPS} of its 15,000 steps; no point spread.",
            lambda s: _hulfsynth(s, seed),
        ),
    }
    for name, its in METHODS.items():
        chosen = settings if name == "default" else replace(its, tv_weight=weight)
        out[f"INR, {name}"] = ("A field fitted through the forward model.", _fitted(chosen, seed, None))
    for name, prior in priors.items():
        out[f"INR, {name}"] = (f"The default field with the prior: {name}.", _fitted(settings, seed, prior))
    return out


def _part(ready: PreparedScan, hidden: Split, device: torch.device) -> Scene:
    start = smooth_start(hidden, ready.scan.grid, ready.lattice, ready.noise_sd)
    seen, filled = (Volume(data, ready.scan.grid) for data in (hidden.scan, hidden.filled))
    return Scene(ready, hidden.operator, seen, filled, start, device)


def _both(whole: Scene, part: Scene) -> tuple[tuple[str, Scene], tuple[str, Scene]]:
    return ("whole", whole), ("part", part)


class _Clock:
    """A method that remembers the seconds of its first run."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.first: float | None = None

    def __call__(self, scene: Scene) -> Tensor:
        begin = time.perf_counter()
        image = self.method(scene)
        if self.first is None and scene.scan is scene.ready.scan:
            self.first = time.perf_counter() - begin
        return image


def _kept(keep: KeepMember | None, name: str, scene: Scene, method: Method) -> Tensor:
    if keep is None:
        return method(scene)
    return keep(f"compare_{name.replace(' ', '_').replace(',', '')}", lambda: method(scene))


def _judged(
    name: str,
    text: str,
    ready: PreparedScan,
    image: Tensor,
    unseen: Tensor,
    tested: Tensor,
    of_scan: Tensor,
    tissues: TissueMap,
    seconds: float | None,
) -> Judged:
    residual = whiteness(residual_z(ready.scan.data, predict(ready.operator, image), ready.noise_sd), of_scan)
    said, _ = chi_moments(predict(ready.operator, unseen)[tested], ready.noise_sd)
    error = _rms(ready.scan.data[tested] - said) / ready.noise_sd
    michelson, cnr = contrast_of(image, tissues)
    shown = inner(Volume(image * ready.scale, ready.lattice), ready.output_grid)
    return Judged(name, text, shown, error, residual, michelson, cnr, seconds)


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


def _huber_tv(scene: Scene, weight: float) -> Tensor:
    data, start, spacing = scene.data.to(scene.device), scene.start.to(scene.device), scene.ready.lattice.spacing_mm
    return huber_tv(data.operator, data.scan, data.noise_sd, start, spacing, TvSettings(weight=weight)).x.cpu()


def _tv_hessian(scene: Scene) -> Tensor:
    data, start, spacing = (
        scene.data.to(scene.device),
        scene.start[None].to(scene.device),
        scene.ready.lattice.spacing_mm,
    )
    settings = for_noise(TvHessianSettings(), scene.ready.noise_sd)
    return tv_hessian(data, start, spacing, settings).x[0].cpu()


def _hulfsynth(scene: Scene, seed: int) -> Tensor:
    ready = scene.ready
    prob = [resample(Volume(p, ready.lattice), scene.filled.grid, order=1).data for p in ready.tissues.prob]
    tissues = TissueMap(torch.stack(prob).clamp(0, 1), ready.tissues.names, scene.filled.grid)
    settings = HulfSynthSettings(n_steps=HULFSYNTH_STEPS)
    return fit_hulfsynth(scene.filled, tissues, ready.lattice, seed, settings).image.data


def _fitted(settings: FitSettings, seed: int, prior: Prior | None) -> Method:
    def run(scene: Scene) -> Tensor:
        ready = scene.ready
        resegment = ready.resegment if scene.scan is ready.scan else None
        plan = FitPlan(settings, prior, device=scene.device)
        return fit_data(ready, scene.data, scene.start[None], seed, plan, resegment).image

    return run


def _rms(error: Tensor) -> float:
    return float(error.square().mean().sqrt())
