"""Simulation: closed loop, likeness to real 64 mT scans, speed beside peers, the contrast solve, reproducibility.

`--peers-python` is an interpreter that has TorchIO and MONAI (`pip install torchio monai`), `--ulf-synth` the file
`simulate_ulf.py` of the public repository toufiqmusah/ULF-Synth; without them their rows are left out and the targets
that need them are not met.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from common.brains import DATA, FILES
from common.results import Row, target
from common.sources import sources_of
from common.store import Store

from mrkit.anatomy.finding import find_tissues
from mrkit.files.images import read_scan
from simulation.contrast_solve import SolveFacts, contrast_solve
from simulation.loop import closed_loop, loop_targets, real_check, real_targets
from simulation.speed import Peers, same_bytes, speed, speed_targets

VERSION_OF = sources_of("simulation.benchmark")
HEAD = "brainchop_t1_head.nii.gz"
SOLVE = "Contrast solve"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--data", type=Path, default=DATA, help="folder of high-field T1w scans (default: %(default)s)")
    parser.add_argument("--ulf", type=Path, default=DATA.parent / "ulf", help="folder of the real 64 mT scans")
    parser.add_argument("--brains", nargs="+", choices=tuple(FILES), default=tuple(FILES), help="brains of the loop")
    parser.add_argument("--seeds", type=int, default=5, help="noise seeds (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="of each timing (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    parser.add_argument("--peers-python", default=None, help="an interpreter that has TorchIO and MONAI")
    parser.add_argument("--ulf-synth", type=Path, default=None, help="simulate_ulf.py of ULF-Synth")


def run(options: argparse.Namespace, store: Store) -> tuple[list[Row], list[Row], int]:
    """Measure and return rows, targets and seed; timings are never taken from an earlier run."""
    torch.set_num_threads(options.threads)
    timed = _speed(options, store)
    solve = contrast_solve()
    loop = closed_loop(options.data, options.brains, options.seeds, store)
    real = real_check(options.data, options.ulf, options.seeds, store)
    targets = [
        *loop_targets(loop),
        *real_targets(real),
        *speed_targets(timed),
        *_solve_targets(solve),
        *same_bytes(),
    ]
    return [*timed, *loop, *real, {"table": SOLVE, **vars(solve)}], targets, 0


def _speed(options: argparse.Namespace, store: Store) -> list[Row]:
    image = options.data / HEAD
    volume = read_scan(image)
    tissues, _ = find_tissues(volume)
    peers = Peers(options.peers_python, options.ulf_synth)
    return speed(image, volume, tissues, peers, options.repeats, options.threads)


def _solve_targets(solve: SolveFacts) -> list[Row]:
    return [
        target("microseconds a contrast solve, in a batch", solve.us_batch, at_most=10),
        target("microseconds a contrast solve, on its own", solve.us_single, at_most=1000),
        target("relative excess of the solve's cost over scipy's", solve.excess_over_scipy, at_most=1e-9),
        target("relative excess of its cost over 64 trust-constr starts", solve.excess_over_starts, at_most=1e-9),
    ]
