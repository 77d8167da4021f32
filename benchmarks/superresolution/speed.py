"""What super-resolution of a whole head costs, where the time goes, and HULFSynth's loop beside it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from common.brains import phantom_brain
from common.results import Row, measured, target
from common.sources import version_of
from common.store import Store

from inr.fitting.fit import Fit, FitSettings
from inr.hulfsynth import HulfSynthSettings, fit_hulfsynth
from inr.voxels import cubic, tikhonov
from mrcore.data.volume import TissueMap, Volume
from mrcore.forward import covering_grid, imaging_operator
from mrkit.anatomy.resolution import psf_of
from mrkit.files.images import read_scan
from mrkit.simulation.simulate import simulate_ulf
from mrkit.superresolution.fitting import FitPlan, chosen_weight, fit_prepared
from mrkit.superresolution.lattice import lattice_for
from mrkit.superresolution.prepare import Prepared, prepare
from superresolution.scene import PRESET
from ulfsim.protocols.presets import PRESETS

SPEED = "Cost of a whole head"
HEAD = "brainchop_t1_head.nii.gz"
TOTAL, PREVIEW, LOOP = "superresolve, default, all of it", "preview: cubic and Tikhonov CG", "HULFSynth, one step"
HULFSYNTH_STEPS, PUBLISHED_STEPS = 8, 15000
SEED = 1
MIB_ALLOWED = 6144.0


def speed(options: argparse.Namespace, store: Store) -> list[Row]:
    """Return the rows of one head at the output voxel, with the threads that are set."""
    key = {"speed": "phantom" if options.phantom else HEAD, "voxel_mm": options.voxel, "threads": options.threads}
    key["version"] = version_of(timed)
    rows = store.load(key)
    if rows is None:
        rows = timed(_scan(options), options.voxel)
        store.save(key, rows)
    return rows


def speed_targets(rows: Sequence[Row]) -> list[Row]:
    """Return the targets on time and memory; what was not measured is not met."""
    nan = float("nan")
    by_name = {str(row["what"]): row for row in rows if row["table"] == SPEED}

    def figure(what: str, column: str) -> float:
        return float(str(by_name[what].get(column, nan))) if what in by_name else nan

    total, step = figure(TOTAL, "seconds"), figure(LOOP, "seconds")
    return [
        target("whole head, default: seconds of everything", total, at_most=180),
        target("whole head: seconds of the preview", figure(PREVIEW, "seconds"), at_most=10),
        target("whole head, default: peak MiB", figure(TOTAL, "peak MiB"), at_most=MIB_ALLOWED),
        target(
            "seconds of HULFSynth's 15,000 steps over those of the default", PUBLISHED_STEPS * step / total, at_least=1
        ),
        # Fits run on a GPU, too, but none was at hand to time them.
        target("whole head, default, on an H200: seconds", nan, at_most=5),
    ]


def timed(scan: Volume, voxel_mm: float) -> list[Row]:
    """Return the seconds and the memory of each stage of `superresolve`, of the preview and of HULFSynth's loop."""
    with measured() as preview:
        lattice, _ = lattice_for(scan, voxel_mm)
        operator = imaging_operator(lattice, scan.grid, psf_of(scan)[0])
        level = float(scan.data.quantile(0.98))
        begin = cubic(Volume(scan.data / level, scan.grid), lattice).data
        tikhonov(operator, scan.data / level, 0.02, begin, lattice.spacing_mm)
    with measured() as everything:
        with measured() as preparation:
            ready = prepare(scan, voxel_mm=voxel_mm)
        with measured() as choosing:
            settings = replace(FitSettings(), tv_weight=chosen_weight(ready).weight)
        with measured() as fitting:
            fitted = fit_prepared(ready, SEED, FitPlan(settings))
    rows: list[Row] = [_row(PREVIEW, preview.seconds, preview.cpu_seconds, preview.peak_mib)]
    rows += [
        _row("its preparation: brain, tissues, noise, start", preparation.seconds, preparation.cpu_seconds),
        _row("its choice of the weight of total variation", choosing.seconds, choosing.cpu_seconds),
        _row(f"its fit: {settings.n_steps} steps", fitting.seconds, fitting.cpu_seconds, fitting.peak_mib),
    ]
    peak = max(preparation.peak_mib, choosing.peak_mib, fitting.peak_mib)
    rows.append(_row(TOTAL, everything.seconds, everything.cpu_seconds, peak))
    return [*rows, *_arithmetic(fitted, settings, fitting.seconds), *_hulfsynth(ready)]


def _scan(options: argparse.Namespace) -> Volume:
    """Return a simulated scan of the head."""
    if options.phantom:
        brain = phantom_brain(PRESETS[PRESET].acquisition, options.voxel)
        made = simulate_ulf(brain.volume, preset=PRESET, tissues=brain.tissues, seed=SEED)
        return Volume(made.scan.data, made.scan.grid, {**made.scan.meta, "SkullStripped": True})
    return simulate_ulf(read_scan(options.data / HEAD), preset=PRESET, seed=SEED).scan


def _arithmetic(fitted: Fit, settings: FitSettings, seconds: float) -> list[Row]:
    """Return what the matrix products of the field would take at the speed of a large product here.

    Each point passes the decoder once forward and twice backward in a step. Everything else that a fit does
    (interpolation, total variation, the forward model, elementwise functions) moves memory and is not counted: what
    the fit takes beyond this bound is that.
    """
    products = sum(p.numel() for p in fitted.field.parameters() if p.ndim == 2)
    gflop = 3 * 2 * products * int(fitted.foreground.sum()) / 1e9 * settings.n_steps
    rate = _gflop_per_second()
    bound = {"GFLOP": gflop, "GFLOP/s of a product": rate, "GFLOP/s reached": gflop / seconds}
    return [{**_row("its fit at the speed of matrix products", gflop / rate), **bound}]


def _gflop_per_second(n: int = 1024, repeats: int = 6) -> float:
    a, b = torch.rand(n, n), torch.rand(n, n)
    a @ b
    begin = time.perf_counter()
    for _ in range(repeats):
        a @ b
    return 2 * n**3 * repeats / (time.perf_counter() - begin) / 1e9


def _hulfsynth(ready: Prepared) -> list[Row]:
    """Time the published loop; a step does not depend on the lattice, so a coarse one spares the rendering."""
    scan = ready.scans[0]
    prob = torch.ones(3, *scan.grid.shape) / 3
    tissues = TissueMap(prob, ready.tissues.names, scan.grid)
    settings = HulfSynthSettings(n_steps=HULFSYNTH_STEPS)
    found = fit_hulfsynth(scan, tissues, covering_grid(scan.grid, 16.0), SEED, settings).seconds_per_step
    name = f"HULFSynth, {PUBLISHED_STEPS} steps, extrapolated"
    return [_row(LOOP, found), _row(name, PUBLISHED_STEPS * found)]


def _row(what: str, seconds: float, cpu_seconds: float | None = None, peak_mib: float | None = None) -> Row:
    row: dict[str, object] = {"table": SPEED, "what": what, "seconds": seconds, "threads": torch.get_num_threads()}
    row |= {} if cpu_seconds is None else {"CPU seconds": cpu_seconds}
    return row if peak_mib is None else {**row, "peak MiB": peak_mib}
