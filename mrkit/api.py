"""The verbs: `simulate_ulf` and `superresolve`. Objects in, objects out; files are the command line's business."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inr.baselines import cubic
from inr.fit import FitSettings, fit
from mrcore.acquisition import Acquisition
from mrcore.brainmask import is_skull_stripped
from mrcore.errors import BadInputError
from mrcore.forward import predict
from mrcore.noise import chi_moments
from mrcore.segment import Segmenter
from mrcore.solve import Solution
from mrcore.volume import TissueMap, Volume
from mrkit.lattice import inner
from mrkit.prepare import find_tissues, prepare, usable, weighting
from mrkit.progress import stages
from ulfsim.calibrate import Calibration
from ulfsim.like import preset_like
from ulfsim.measure import measure
from ulfsim.plan import with_margin
from ulfsim.presets import PRESETS, Preset, with_wm_snr
from ulfsim.simulate import calibrated_simulation
from ulfsim.source import source_of
from ulfsim.window import touches_edge


@dataclass(frozen=True, eq=False)
class SimulatedScan:
    """A simulated scan: `scan` on its own grid, `truth` (the noise-free object in the scan's contrast), `tissues` and
    `mask` on the source's grid, and how it was made.
    """  # noqa: D205  the summary names every field

    scan: Volume
    truth: Volume
    tissues: TissueMap
    mask: Tensor
    acquisition: Acquisition
    calibration: Calibration
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SuperResolved:
    """A super-resolved scan.

    `image`, `tissues` and `cubic` (for comparison) lie on the output grid; `residual_z`, (scan - expected) / sd under
    Rician noise, on the scan's. `noise_sd` is per real channel, in units of the scan. `solution` says how the fit
    ended.
    """

    image: Volume
    tissues: TissueMap
    cubic: Volume
    residual_z: Volume
    noise_sd: float
    solution: Solution
    notes: tuple[str, ...]


def simulate_ulf(
    volume: Volume,
    *,
    preset: str = "hyperfine-t1w",
    like: Volume | None = None,
    tissues: TissueMap | None = None,
    mask: Tensor | None = None,
    segmenter: Segmenter | None = None,
    wm_snr: float | None = None,
    seed: int = 0,
) -> SimulatedScan:
    """Simulate an ultra-low-field scan of a high-field `volume`.

    Args:
        volume: magnitude image, with or without its skull.
        preset: name in `ulfsim.presets.PRESETS`; not used with `like`.
        like: a real scan whose voxel size, SNR and contrast are taken over.
        tissues: tissue maps on the grid of `volume`; found by `segmenter` otherwise.
        mask: brain mask (bool, X, Y, Z); found otherwise.
        segmenter: what finds tissues; mrkit's HMRF-EM by default.
        wm_snr: SNR of white matter, scaling all targets.
        seed: of the noise.

    Raises:
        BadInputError: an unknown preset, or an image that cannot be used.
        GridMismatchError: mask or tissues on another grid.
    """
    if like is None and preset not in PRESETS:
        raise BadInputError(f"no preset '{preset}'; there are {', '.join(PRESETS)}")
    notes: list[str] = []
    volume = usable(volume)
    with stages(2) as begin:
        begin("finding brain and tissues")
        tissues = find_tissues(volume, tissues, mask, segmenter, notes)
        chosen = PRESETS[preset] if like is None else _preset_like(like, notes)
        begin("calibrating and simulating")
        if wm_snr is not None:
            chosen = with_wm_snr(chosen, wm_snr)
        padded, seen = volume, tissues
        margin_mm = max(chosen.acquisition.voxel_mm)
        if touches_edge(volume, margin_mm):
            # The lattice is one period of the operator: what lies at one edge would be blurred into the opposite one.
            padded, seen = with_margin(volume, tissues, margin_mm)
            notes.append(
                f"the object reaches the edge of its field of view: {margin_mm:g} mm of zeros were put around it"
            )
        calibration, made = calibrated_simulation(source_of(padded, seen), chosen, seed)
        notes += [*made.notes, *calibration.warnings, f"protocol: {chosen.source}"]
    # A brain over noisy air cannot be told from a head by its looks.
    scan = Volume(made.scan.data, made.scan.grid, {**made.scan.meta, "SkullStripped": is_skull_stripped(volume)})
    return SimulatedScan(
        scan,
        inner(made.truth, volume.grid),
        tissues,
        tissues.mask,
        made.acquisition,
        calibration,
        tuple(dict.fromkeys(notes)),
    )


def superresolve(
    scan: Volume,
    *,
    voxel_mm: float = 1.0,
    mask: Tensor | None = None,
    tissues: TissueMap | None = None,
    segmenter: Segmenter | None = None,
    seed: int = 0,
    settings: FitSettings | None = None,
) -> SuperResolved:
    """Fit image and tissues of this subject to `scan` and render them at `voxel_mm`.

    Args:
        scan: magnitude scan; where its `meta` holds an `Acquisition`, the PSF is taken from there, else it is a
            Gaussian of one voxel with truncation.
        voxel_mm: isotropic output voxel; the output covers the scan's field of view along its axes.
        mask: brain mask (bool) on the scan's grid; found otherwise.
        tissues: initial tissue maps on the scan's grid; found by `segmenter` otherwise.
        segmenter: what finds the initial tissues; mrkit's HMRF-EM by default.
        seed: of the field's first state.
        settings: of the fit.

    Raises:
        BadInputError: a scan that cannot be used, or whose brain cannot be found.
        GridMismatchError: mask or tissues on another grid.
    """
    scan = usable(scan)
    ready = prepare(scan, voxel_mm=voxel_mm, mask=mask, tissues=tissues, segmenter=segmenter)
    fitted = fit(
        ready.scan.data,
        ready.operator,
        ready.lattice,
        ready.noise_sd,
        ready.start,
        ready.foreground,
        ready.tissues,
        seed,
        settings,
        ready.resegment,
    )
    solution = fitted.solution
    notes = list(ready.notes)
    if not solution.converged:
        notes.append(f"the fit had not settled: {solution.message}")
    notes += _scarce(fitted.prob, ready.tissues.names)
    kept = {key: value for key, value in scan.meta.items() if key not in ("Acquisition", "Simulation")}
    image = inner(Volume(fitted.image * ready.scale, ready.lattice, kept), ready.output_grid)
    prob = torch.stack([inner(Volume(p, ready.lattice), ready.output_grid).data for p in fitted.prob])
    expected, sd = chi_moments(predict(ready.operator, fitted.image), ready.noise_sd)
    return SuperResolved(
        image,
        TissueMap(prob, ready.tissues.names, ready.output_grid),
        cubic(Volume(scan.data, scan.grid, kept), ready.output_grid),
        Volume((ready.scan.data - expected) / sd, scan.grid, kept),
        ready.noise.sd,
        replace(solution, x=image.data),
        tuple(notes),
    )


def _scarce(prob: Tensor, names: tuple[str, ...]) -> list[str]:
    """Return a note for each tissue (T, X, Y, Z) that is the likeliest in less than 1 % of the brain."""
    labels = prob.argmax(0)[prob.sum(0) > 0.5]
    counts = torch.bincount(labels, minlength=len(names)).tolist()
    return [
        f"{name} makes up {100 * count / len(labels):.2g} % of the brain found: do not trust the tissues"
        for name, count in zip(names, counts, strict=True)
        if count < 0.01 * len(labels)
    ]


def _preset_like(like: Volume, notes: list[str]) -> Preset:
    found: list[str] = []
    tissues = find_tissues(like, None, None, None, found)
    stats = measure(like, tissues)
    notes += [f"reference scan: {note}" for note in (*found, *stats.notes)]
    return preset_like(like, stats, weighting(like))
