"""MR fingerprinting: T1, T2 and PD of real people's maps, scanned anew and reconstructed by every method.

Subjects 6 to 8 of Deli-CS are in no net's training. A scan is simulated unlike the model that reconstructs it (see
`fingerprinting.scene`); settings of the methods are the package's defaults. Acceleration R: the train of 500 frames is
played 16 / R times along other arms. Tables leave out nothing: targets are rows, met or not.

A run goes on where an earlier one ended: every method on every scan is kept. `--minutes` bounds it; what it did not
reach is listed.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from common.results import Row, measured
from common.sources import sources_of, version_of
from common.store import Store
from torch import Tensor
from tqdm import tqdm

from fingerprinting import foreign, speed
from fingerprinting.methods import BASELINES, LRTV, METHODS, MRI2QMAP, Ready, errors_in, model_of, prepared
from fingerprinting.scene import DATA, MOST_SHOTS, SNR, Case, Truth, in_vivo, scanned, slab
from recon.dictionary.dictionary import fisp_model
from recon.files.sequences import delics_sequence

SHARED = (
    "recon.coils.maps",
    "recon.trajectories.density",
    "recon.encoding.encoding",
    "recon.methods.maps",
    "mrcore.denoisers.trained",
    "mrcore.denoisers.files",
)
VERSION_OF = sources_of("fingerprinting.scene", "common.results", *SHARED)
"""What the scans, their preparation and the net depend on; methods add what they depend on."""
ERRORS, MEANS, COSTS, LEFT_OUT = "Errors of each scan", "Mean errors by method", "Costs", "Left out"
TISSUES, QUANTITIES = ("WM", "GM", "CSF"), ("T1", "T2", "PD")
AIMS = {"T1": 5.0, "T2": 10.0}
"""MAPE in % that MRI2Qmap shall stay under at eightfold acceleration in WM and in GM."""
SLAB = "slab of labels"
PARTS = ("in vivo", "slab", "foreign", "speed")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to run (all)")
    parser.add_argument("--subjects", nargs="+", type=int, default=[6, 7, 8], choices=[6, 7, 8], help="(6 7 8)")
    parser.add_argument("--slices", nargs="+", type=int, default=[7, 4, 10], help="of 0 to 14 (7 4 10)")
    parser.add_argument("--accelerations", nargs="+", type=int, default=[1, 4, 8, 16], help="(1 4 8 16)")
    parser.add_argument("--trajectories", nargs="+", default=["spiral", "radial"], choices=["spiral", "radial"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, help="default: all")
    parser.add_argument("--step", type=int, default=1, help="keep every n-th voxel: 2 for a quick look (%(default)s)")
    parser.add_argument("--snr", type=float, default=SNR, help="of a fully sampled image (%(default)g)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], help="of noise, B1 and jitter (1)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="for people and slab (no limit)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (%(default)s)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data (%(default)s)")
    speed.add_options(parser)


def run(options: argparse.Namespace, store: Store) -> tuple[list[Row], list[Row], int]:
    """Return the rows and targets of all parts, and the first seed."""
    torch.set_num_threads(options.threads)
    cases = list(_cases(options))
    end = time.monotonic() + 60 * options.minutes
    rows: list[Row] = []
    with tqdm(total=len(cases) * len(options.methods), desc="reconstructions", disable=None) as progress:
        for case in cases:
            rows += _rows_of(case, options, store, progress, end)
    further: list[Row] = []
    if "foreign" in options.parts:
        further += foreign.rows_of(options.data, store)
    targets = [*targets_of(rows), *(foreign.targets_of(further) if further else [])]
    if "speed" in options.parts:
        costs, asked = speed.speed_rows(options, store)
        further, targets = [*further, *costs], [*targets, *asked]
    about = {
        "table": "Settings",
        "snr": options.snr,
        "step": options.step,
        "threads": options.threads,
        "most shots": MOST_SHOTS,
    }
    return [*means_of(rows), *rows, *further, about], targets, options.seeds[0]


def _cases(options: argparse.Namespace):  # noqa: ANN202
    """Yield the cases, the most telling first."""
    order = sorted(options.accelerations, key=lambda r: (r not in (8, 4), r == 1, r))
    if "in vivo" in options.parts:
        for index, acceleration in itertools.product(options.slices, order):
            for trajectory, subject, seed in itertools.product(options.trajectories, options.subjects, options.seeds):
                yield Case(f"subject {subject}, slice {index}", trajectory, acceleration, seed)
    if "slab" in options.parts:
        yield from (Case(SLAB, "stack of spirals", r, options.seeds[0]) for r in order if r in (4, 8))


def _rows_of(case: Case, options: argparse.Namespace, store: Store, progress: tqdm, end: float) -> list[Row]:
    """Return the rows of all methods on one case, which is scanned only if something is missing, and till `end`."""
    scan: tuple[Truth, Ready, Tensor] | None = None
    rows: list[Row] = []
    for name in options.methods:
        key = {
            **case.labels(),
            "snr": options.snr,
            "step": options.step,
            "method": name,
            "versions": [version_of(part) for part in (METHODS[name], model_of, prepared, errors_in)],
        }
        found = store.load(key)
        if found is None and time.monotonic() > end:
            found = [{"table": LEFT_OUT, **case.labels(), "method": name, "why": "time"}]
        elif found is None:
            progress.set_postfix_str(f"{case.subject}, {case.trajectory}, R {case.acceleration}, {name}")
            scan = _scan(case, options) if scan is None else scan
            found = _examined(case, name, *scan)
            store.save(key, found)
        rows += found
        progress.update()
    return rows


def _scan(case: Case, options: argparse.Namespace) -> tuple[Truth, Ready, Tensor]:
    truth = slab(options.data) if case.subject == SLAB else in_vivo(*_numbers(case.subject), options.data, options.step)
    raw, pd = scanned(truth, case, delics_sequence(), options.snr)
    ready = prepared(raw, _model())
    _ = ready.balanced, ready.compensated, ready.mask  # shared by the methods: no part of their cost
    return truth, ready, pd


@cache
def _model():  # noqa: ANN202
    return model_of(delics_sequence(), fisp_model(delics_sequence()))


def _numbers(name: str) -> tuple[int, int]:
    subject, index = (int(part.split()[1]) for part in name.split(", "))
    return subject, index


def _examined(case: Case, name: str, truth: Truth, ready: Ready, pd: Tensor) -> list[Row]:
    with measured() as cost:
        maps = METHODS[name](ready)
    labels = {**case.labels(), "method": name}
    costs = {"seconds": cost.seconds, "CPU seconds": cost.cpu_seconds, "peak MiB": cost.peak_mib}
    return [{"table": ERRORS, **labels, **errors_in(truth, pd, maps)}, {"table": COSTS, **labels, **costs}]


def means_of(rows: Sequence[Row]) -> list[Row]:
    """Return the mean errors over people and slices for each trajectory, acceleration and method."""
    errors = [row for row in rows if row["table"] == ERRORS]
    groups = dict.fromkeys((_kind(row), row["trajectory"], row["R"], row["method"]) for row in errors)
    out: list[Row] = []
    for group in groups:
        chosen = [row for row in errors if (_kind(row), row["trajectory"], row["R"], row["method"]) == group]
        row: dict[str, object] = {
            "table": MEANS,
            **dict(zip(("object", "trajectory", "R", "method"), group, strict=True)),
        }
        row["scans"] = len(chosen)
        for column in (c for c in chosen[0] if c.endswith(("%", "dB"))):
            row[column] = _mean([float(str(entry[column])) for entry in chosen])
        out.append(row)
    return out


def _kind(row: Row) -> str:
    return SLAB if row["scan"] == SLAB else "in vivo"


def targets_of(rows: Sequence[Row]) -> list[Row]:
    """Return the targets for the people's scans, of each trajectory; what was not measured is not met."""
    means = {(m["trajectory"], m["R"], m["method"]): m for m in means_of(rows) if m["object"] != SLAB}
    out: list[Row] = []
    for trajectory, quantity in itertools.product(("spiral", "radial"), AIMS):
        columns = [f"{quantity} {tissue} MAPE %" for tissue in ("WM", "GM")]

        at_8 = {name: means.get((trajectory, 8, name)) for name in (MRI2QMAP, *BASELINES)}
        ours, start, both = at_8[MRI2QMAP], f"{trajectory}, R 8: {MRI2QMAP}", f"{quantity} MAPE % of WM and GM"
        out += [_below(f"{start}, {column}", _error(ours, [column]), AIMS[quantity]) for column in columns]
        for name in BASELINES:
            bound = _error(at_8[name], columns)
            out.append(_below(f"{start} better than {name}, {both}", _error(ours, columns), bound))
        bound = _error(means.get((trajectory, 4, LRTV)), columns)
        out.append(_below(f"{start} no worse than {LRTV} at R 4, {both}", _error(ours, columns), bound))
    return out


def _error(row: Row | None, columns: Sequence[str]) -> float | None:
    return None if row is None else _mean([float(str(row[column])) for column in columns])


def _below(name: str, value: float | None, bound: float | None) -> Row:
    """Return a target; what was not measured (None) is not met."""
    text = "not measured" if bound is None else f"< {bound:.3g}"
    return {"name": name, "target": text, "value": value, "met": None not in (value, bound) and value < bound}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
