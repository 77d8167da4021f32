"""The published contrast-only calibration (HULFSynth), beside ours for comparison.

Source: Indrakanti & Simpson 2025, arXiv:2511.14897. As published: SNRs of the high-field image itself (no blur of the
scan in them), gains from the three SNR differences alone within [0, 1], the smallest of all that reach them, applied
to image times tissue probability, and 1 outside all tissues; the noise is that of the source.

Not as published: regions are tissue cores, not drawn by hand; the problem, a convex bounded least squares, is solved
exactly instead of from 64 starts of a general solver; scan geometry, point spread, complex noise and magnitude are
those of our simulations (theirs: Gaussian of 0.4 voxel, every second voxel of two axes, a positive number added in
the foreground).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mrcore.data.volume import TissueMap, Volume, require_same_grid
from mrcore.errors import BadInputError
from mrcore.forward import predict
from ulfsim.artefacts.artefacts import NO_ARTEFACTS, Artefacts
from ulfsim.calibration.bounded import solve_bounded
from ulfsim.calibration.gains import Calibration, concluded, named, table
from ulfsim.calibration.gauge import Problem, check_determined, contrast_warnings, differences, on_bound, sensitivity
from ulfsim.measurement.contrast import measure, pairs, tissue_cores
from ulfsim.plan import ScanPlan, plan_scan, tissues_through
from ulfsim.protocols.presets import Preset
from ulfsim.simulation import Simulation, simulate
from ulfsim.source.source import Source, truth_of

Array = NDArray[np.float64]

CONTRAST_ONLY = "contrasts only, smallest gains (published method)"


def calibrate_as_published(
    source: Source,
    plan: ScanPlan,
    target_snr: Mapping[str, float],
    *,
    noise_sd: float | None = None,
    upper: float = 1.0,
    epsilon: float = 1e-6,
) -> Calibration:
    """Run the published calibration on `source`, with the contrasts of `target_snr` (tissue -> SNR) as its target.

    `noise_sd` is the noise of the source per real channel, measured where it is not given. A source with none, or with
    a lower SNR than the target, is taken to have the noise at which the target is just within reach (not published:
    there the source is always good enough). The result says which SNRs the scan of `plan` then has, which the method
    does not look at, and how far they are off the target.

    Raises:
        GridMismatchError: source and plan that do not share a grid.
        BadInputError: targets that do not name the tissues or are not positive; tissues without signal.
    """
    require_same_grid(source.volume.grid, plan.object_grid, "the image and the object of the scan plan")
    names = source.names
    if sorted(target_snr) != sorted(names) or min(target_snr.values()) <= 0:
        raise BadInputError(f"target_snr needs a positive number for each of {list(names)}, got {dict(target_snr)}")
    if upper <= 0 or (noise_sd is not None and noise_sd <= 0):
        raise BadInputError(f"upper and noise_sd must be positive, got {upper} and {noise_sd}")
    target = np.array([target_snr[name] for name in names])
    stats = measure(source.volume, source.tissues, noise_sd)
    means = np.array(stats.mean)
    check_determined(np.diag(means))
    sd, scale = stats.noise_sd, "units of the source, whose noise is kept"
    highest = float(upper * (means / target).min())
    if noise_sd is None and not 0 < sd <= highest:
        sd, scale = highest, "units of the source, whose noise was assumed (not published)"
    problem = _problem(names, means, sd, upper, scale)
    gains, slope = _smallest(problem, differences(names) @ target, epsilon)
    cores, notes = tissue_cores(tissues_through(plan, source.tissues))
    clean = predict(plan.operator, truth_of(source, named(names, gains), 1.0).data)
    seen = np.array([float(clean[core].double().mean()) for core in cores])
    warnings = (*notes, *contrast_warnings(names, seen, np.array(source.levels)))
    return concluded(problem, gains, seen, named(names, target), _slopes(names, slope), warnings, 1.0)


def published_source(volume: Volume, tissues: TissueMap) -> Source:
    """Split `volume` into image times tissue probability, as published; `source_of` says what that does to borders.

    Raises:
        GridMismatchError: tissues on another grid.
    """
    image = volume.data.clamp_min(0)
    basis = tissues.prob.to(image.dtype) * image
    whole = tuple(slice(0, n) for n in volume.grid.shape)
    rest = (image - basis.sum(0)).clamp_min(0)
    return Source(volume, tissues, basis, rest, (whole[0], whole[1], whole[2]))


def published_simulation(
    volume: Volume,
    tissues: TissueMap,
    preset: Preset,
    seed: int,
    noise_sd: float | None = None,
    artefacts: Artefacts = NO_ARTEFACTS,
) -> tuple[Calibration, Simulation]:
    """Simulate a scan of `preset` from `volume` with the published gains; `noise_sd` is the noise of `volume`.

    Raises:
        GridMismatchError: tissues on another grid.
    """
    source = published_source(volume, tissues)
    plan = plan_scan(volume.grid, preset.acquisition, volume.data.dtype)
    found = calibrate_as_published(source, plan, preset.snr, noise_sd=noise_sd)
    acquisition = replace(preset.acquisition, noise_sd=found.noise_sd)
    return found, simulate(source, acquisition, found.gains, seed, found.background_gain, artefacts)


def _problem(names: tuple[str, ...], means: Array, noise_sd: float, upper: float, scale: str) -> Problem:
    return Problem(names, np.diag(means), upper, noise_sd, CONTRAST_ONLY, scale)


def _smallest(problem: Problem, contrasts: Array, epsilon: float) -> tuple[Array, Array]:
    """Return the published gains and their derivative (tissues, pairs) by the contrasts."""
    n, pull = len(problem.names), math.sqrt(2 * epsilon)
    rows = np.vstack([differences(problem.names) @ problem.matrix / problem.noise_sd, pull * np.eye(n)])
    effect = np.vstack([np.eye(len(contrasts)), np.zeros((n, len(contrasts)))])
    gains = solve_bounded(rows, effect @ contrasts, 0.0, problem.upper)
    return gains, sensitivity(rows, effect, ~on_bound(gains, problem.upper))


def _slopes(names: tuple[str, ...], slope: Array) -> Mapping[str, Mapping[str, float]]:
    return table(names, tuple(f"{a}-{b}" for a, b in pairs(names)), slope)
