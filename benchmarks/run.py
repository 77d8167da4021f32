"""Run one benchmark: `python benchmarks/run.py NAME [options]` writes benchmarks/results/NAME.json and NAME.md.

A benchmark is a folder beside this file, whose `benchmark.py` has

    VERSION_OF: tuple[str, ...]                          sources (paths from the project's root) that decide its figures
    add_options(parser) -> None                          its own options
    run(options, store) -> tuple[rows, targets, seed]    the work; `store` (common/store.py) keeps what is finished
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from common.results import FOLDER, write_results
from common.store import Store, code_version

BENCHMARKS: Mapping[str, str] = MappingProxyType(
    {
        "simulation": "closed loop, likeness to real 64 mT scans, speed beside TorchIO, MONAI and ULF-Synth",
        "superresolution": "per-subject INR against interpolation, Tikhonov and Huber-TV on real brains",
        "fingerprinting": "T1, T2 and PD from undersampled k-space by MRI2Qmap and others, and what they cost",
        "segmentation": "tissue segmentation against labels and other programs",
        "enhancement": "a trained network against what the scan alone gives, on brains that it never saw",
    }
)
"""Names, which are also those of the folders, and what each shows."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark that the command line asks for; return the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser()
    if not arguments or arguments[0].startswith("-"):
        parser.parse_args(arguments)
    if arguments[0] not in BENCHMARKS:
        parser.error(f"no benchmark '{arguments[0]}'; there are {', '.join(BENCHMARKS)}")
    # Only what is asked for is imported: help and errors come at once.
    module = importlib.import_module(f"{arguments[0]}.benchmark")
    module.add_options(parser)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    store = Store(options.out / "work", code_version(module.VERSION_OF), fresh=options.fresh)
    from mrcore.errors import MrkitError

    try:
        rows, targets, seed = module.run(options, store)
    except MrkitError as error:
        print(f"run.py {options.name}: {error}", file=sys.stderr)
        return 2
    path = write_results(options.name, rows, targets, seed, folder=options.out)
    missed = [entry for entry in targets if not entry["met"]]
    print(f"{path}: {len(rows)} rows; {len(targets) - len(missed)} of {len(targets)} targets met")
    for entry in missed:
        print(f"  not met: {entry['name']}: {entry['target']}, got {entry['value']}")
    return 0


def _parser() -> argparse.ArgumentParser:
    names = "\n".join(f"  {name:16} {what}" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="run.py",
        description="Run one benchmark and write its figures as JSON and Markdown.",
        epilog=f"benchmarks:\n{names}\n\nrun.py NAME --help lists the options of one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="one of those below")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="do again what an earlier run had finished")
    return parser


if __name__ == "__main__":
    sys.exit(main())
