"""`mrkit demo`: everything at once on a template brain."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mrkit.arguments import add_command, at_least_one, whole

if TYPE_CHECKING:
    from mrkit.arguments import Commands

_DESCRIPTION = """\
Take the ICBM-152 T1 template that nilearn carries (no download), simulate a 64 mT T1w scan of it (1.6 x 1.6 x 5 mm),
super-resolve that scan, and compare with the truth: images, tissues, and one page with pictures and metrics. Needs
mrkit[demo]; a few minutes on two cores."""

_EPILOG = """\
examples:
  mrkit demo --out demo-out            then open demo-out/report.html
  mrkit demo --out demo-out --quick    coarser and much faster, to see that everything works"""


def add_parser(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        common,
        "demo",
        summary="everything at once on a template brain, with a report",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo-out"),
        metavar="DIR",
        help="folder for the results (default: %(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="a coarser result and a shorter fit")
    parser.add_argument(
        "--seed", type=whole, default=1, metavar="N", help="all randomness follows from it (default: %(default)s)"
    )
    parser.add_argument("--threads", type=at_least_one, metavar="N", help="CPU threads (default: all cores)")
    parser.add_argument("--force", action="store_true", help="replace results that exist")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and name its page; return 0."""
    from mrkit.demo.demo import run_demo
    from mrkit.devices import use_threads

    use_threads(arguments.threads)
    page = run_demo(arguments.out, seed=arguments.seed, quick=arguments.quick, force=arguments.force)
    sys.stdout.write(f"{page}\n")
    return 0
