"""`mrkit fidelity`: how close simulated scans are to real ones."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mrkit.arguments import MASKERS, SEGMENTERS, WEIGHTINGS, add_command, at_least_one, whole

if TYPE_CHECKING:
    from mrkit.arguments import Commands

_DESCRIPTION = """\
Measure how close simulated ultra-low-field scans are to real ones: tissue SNR and CNR, colour of the noise, edge spread
per axis, histogram, and correlation where the same person is on both sides; beside a Gaussian blur (as it is, and with
the noise of the real scans) and a TorchIO-style degradation of the same high-field images."""

_EPILOG = """\
examples:
  mrkit fidelity --sim simulated/ --real real64mT/ --source highfield/ --out fidelity/
  mrkit fidelity --sim t1_ulf.nii.gz --real ulf_T1w.nii.gz --source t1.nii.gz
  mrkit fidelity --sim a/ --real b/ --labels beside            tissues from IMAGE_dseg.nii.gz where there is one

how scans are matched:
  by contrast       from the sidecar, or the end of the name (_T1w, _T2w, _FLAIR); --weighting takes one contrast only,
                    and images that do not say theirs as that one
  by person         equal sub- labels (and sessions), or equal names apart from contrast and _ulf; only then are errors
                    given by person, with a correlation; otherwise groups are compared by their means
Tissues are found in every scan itself, simulated or real, in the same way: a simulation must look right to the
segmenter as well. Label files on the high-field grid are not used.

writes into OUT:
  fidelity.html     tables, plots and pictures; one file, nothing is fetched
  fidelity.json     the same numbers, with mean and spread of each group
  facts/            what was measured of each scan, and its tissues to look at; a second run goes on from there

An image that cannot be used (not fetched, damaged, no brain found) is named and left out; exit code 3 then, and the
reasons are in fidelity.json. --strict stops there instead.
No measure depends on the image's scale. Errors are 0 where both sides agree; the page defines each."""


def add_parser(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        common,
        "fidelity",
        summary="how close simulated scans are to real ones",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    group = parser.add_argument_group("scans")
    group.add_argument("--sim", type=Path, required=True, metavar="DIR", help="simulated scans: a folder, or one file")
    group.add_argument("--real", type=Path, required=True, metavar="DIR", help="real scans: a folder, or one file")
    group.add_argument(
        "--source",
        type=Path,
        metavar="DIR",
        help="high-field images that were simulated; without them the baselines are not run",
    )
    group.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        default=Path("fidelity"),
        help="folder for the results (default: %(default)s)",
    )
    group.add_argument(
        "--weighting",
        choices=WEIGHTINGS,
        help="look at images of this contrast alone, and at those that do not say theirs as of it (default: every "
        "contrast that is on both sides)",
    )
    brain = parser.add_argument_group("brain and tissues")
    brain.add_argument(
        "--labels",
        choices=("none", "beside"),
        default="none",
        help="none: segment every scan (the default); beside: use IMAGE_dseg.nii.gz or IMAGE_label-*_probseg.nii.gz on "
        "the scan's own grid where they lie beside it, on both sides",
    )
    brain.add_argument("--masker", choices=MASKERS, default=MASKERS[0], help="what finds the brain of a head")
    brain.add_argument("--segmenter", choices=SEGMENTERS, default=SEGMENTERS[0], help="what finds CSF, GM and WM")
    run_group = parser.add_argument_group("run")
    run_group.add_argument(
        "--seed", type=whole, default=0, metavar="N", help="of the baselines' noise (default: %(default)s)"
    )
    run_group.add_argument("--threads", type=at_least_one, metavar="N", help="CPU threads (default: all cores)")
    run_group.add_argument("--force", action="store_true", help="replace page and table if they exist")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare, write and name the files; return 0, or 3 where images were left out."""
    from mrkit.devices import use_threads
    from mrkit.fidelity.job import FidelityJob, fidelity_files
    from mrkit.fidelity.measurer import Segmenting
    from mrkit.files.warn import exit_code

    use_threads(arguments.threads)
    job = FidelityJob(
        sim=arguments.sim,
        real=arguments.real,
        out=arguments.out,
        source=arguments.source,
        segmenting=Segmenting(arguments.segmenter, arguments.masker, arguments.labels == "beside"),
        weighting=arguments.weighting,
        seed=arguments.seed,
        force=arguments.force,
    )
    written, left_out = fidelity_files(job)
    for path in written:
        sys.stdout.write(f"{path}\n")
    return exit_code(left_out)
