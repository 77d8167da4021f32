"""Image quality transfer: a trained network beside what the scan alone gives, on brains that it never saw.

The scans are those of the benchmark `superresolution`: five T1w brains of five sources by the preset hyperfine-t1w, at
WM SNR 50, 20 and 10, and scanned unlike the model that is told ("perturbed"). Each method on each scan is kept, so that
a run goes on where an earlier one ended.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from common.brains import DATA, FILES
from common.results import Row, measured, target
from common.sources import sources_of
from common.store import Store
from superresolution.methods import TV_HESSIAN
from superresolution.scene import NOMINAL, PERTURBED, Case, Scene, load, scene_of, source_of
from superresolution.scores import COLUMNS, COSTS, IMAGES, REGIONS, SCORES, difference, gains_of, means_of, value
from tqdm import tqdm

from enhancement.methods import METHODS, ONE_PASS, TETHERED, Compared
from iqt.files import load_restorer
from iqt.restorer import Restorer
from mrcore.io.sidecar import file_sha256
from mrcore.metrics.scores import score_against

VERSION_OF = sources_of("superresolution.scene", "enhancement.methods")
CASES = ((50.0, NOMINAL), (20.0, NOMINAL), (10.0, NOMINAL), (50.0, PERTURBED))
PSNR, EDGES = "PSNR dB inside", "F1@1 inside"
ASKED_DB, ASKED_EACH_DB = 1.2, 0.8
ASKED_EDGES = {50.0: 0.07, 20.0: 0.10, 10.0: 0.14}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--network", type=Path, required=True, help="network of `mrkit train-iqt`, .safetensors")
    parser.add_argument("--brains", nargs="+", choices=FILES, default=list(FILES), help="default: all")
    parser.add_argument("--snrs", nargs="+", type=float, default=[50.0, 20.0, 10.0], help="WM SNR (50 20 10)")
    parser.add_argument("--no-perturbed", action="store_true", help="leave out scans unlike the model")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (%(default)s)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the brains (%(default)s)")
    parser.add_argument("--phantom", action="store_true", help="a small digital head instead of the brains")


def run(options: argparse.Namespace, store: Store) -> tuple[list[Row], list[Row], int]:
    """Return rows and targets."""
    torch.set_num_threads(options.threads)
    net, digest = load_restorer(options.network).net, file_sha256(options.network)[:16]
    names = ["phantom"] if options.phantom else list(options.brains)
    conditions = [c for c in CASES if c[0] in options.snrs and not (options.no_perturbed and c[1] == PERTURBED)]
    rows: list[Row] = []
    for snr, scan in conditions:
        for name in tqdm(names, desc=f"SNR {snr:g} {scan}", disable=None):
            rows += _case(Case(name, snr, 1, scan), net, digest, options, store)
    return [*gains_of(rows, TV_HESSIAN), *means_of(rows), *rows, _about(options, digest)], targets_of(rows), 1


def _case(case: Case, net: Restorer, digest: str, options: argparse.Namespace, store: Store) -> list[Row]:
    @cache
    def scene() -> Scene:
        return scene_of(load(case.brain, options.data, 1.0), case, 1.0)

    rows: list[Row] = []
    for method in METHODS:
        key = {**case.labels(), "method": method.name, "source": source_of(case.brain, options)}
        key |= {"network": digest} if method.uses_network else {}
        found = store.load(key)
        if found is None:
            found = _examined(scene(), method, net)
            store.save(key, found)
        rows += found
    return rows


def _examined(scene: Scene, method: Compared, net: Restorer) -> list[Row]:
    with measured() as cost:
        image = method.run(scene, net)
    scores = score_against(scene.goal, image)
    row: dict[str, object] = {"table": IMAGES, **scene.case.labels(), "method": method.name}
    for name, (column, _) in SCORES.items():
        row |= {f"{column} {region}": getattr(getattr(scores, region), name) for region in REGIONS}
    return [row, {"table": COSTS, **scene.case.labels(), "method": method.name, "CPU seconds": cost.cpu_seconds}]


def targets_of(rows: Sequence[Row]) -> list[Row]:
    """Return what was asked of the tethered network over TV + Hessian, met or not."""
    out: list[Row] = []
    images = [row for row in rows if row["table"] == IMAGES]
    for snr, scan in CASES:
        found, n_scans = difference(images, IMAGES, PSNR, TETHERED, TV_HESSIAN, (snr, scan))
        edges, _ = difference(images, IMAGES, EDGES, TETHERED, TV_HESSIAN, (snr, scan))
        if found is None or edges is None:
            continue
        where = f"SNR {snr:g}, {scan}, {n_scans} brains"
        if scan == PERTURBED:
            nominal, _ = difference(images, IMAGES, PSNR, TETHERED, TV_HESSIAN, (snr, NOMINAL))
            share = found / nominal if nominal else float("nan")
            out.append(target(f"{where}: share of the gain in dB that is kept", share, at_least=0.8))
            continue
        out.append(target(f"{where}: dB over TV + Hessian inside, mean", found, at_least=ASKED_DB))
        out.append(target(f"{where}: the same, worst brain", _worst(images, snr), at_least=ASKED_EACH_DB))
        out.append(target(f"{where}: edge F1 over TV + Hessian", edges, at_least=ASKED_EDGES[snr]))
    seconds = [value(row, "CPU seconds") for row in rows if row["table"] == COSTS and row["method"] == ONE_PASS]
    if seconds:
        out.append(target("CPU seconds of one pass, median", sorted(seconds)[len(seconds) // 2], at_most=20.0))
    return out


def _worst(images: Sequence[Row], snr: float) -> float:
    by_brain: dict[object, dict[object, float]] = {}
    for row in images:
        if (row["WM SNR"], row["scan"]) == (snr, NOMINAL):
            by_brain.setdefault(row["brain"], {})[row["method"]] = value(row, PSNR)
    return min(pair[TETHERED] - pair[TV_HESSIAN] for pair in by_brain.values())


def _about(options: argparse.Namespace, digest: str) -> Row:
    return {"table": "Settings", "network": digest, "columns": ", ".join(COLUMNS), "threads": options.threads}
