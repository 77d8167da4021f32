"""`mrkit transfer`: a k-space transfer function from pairs of scans, and scans degraded with it."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mrkit.arguments import at_least_one, positive, whole

if TYPE_CHECKING:
    from mrkit.arguments import Commands

_DESCRIPTION = """\
Estimate what a low-field scanner does to the k-space of a high-field scan, as one smooth filter and its noise, from
pairs of scans of the same heads (fit); or make low-field scans with it (apply). Contrast between tissues is not
changed: `mrkit simulate` does that."""

_EPILOG = """\
examples:
  mrkit transfer fit hf1.nii.gz ulf1.nii.gz hf2.nii.gz ulf2.nii.gz --out tf.npz
  mrkit transfer apply hf3.nii.gz tf.npz out/ --seed 1
  mrkit transfer apply hf3.nii.gz tf.npz out/ --voxel 1.6 1.6 5"""

_FIT = """\
Estimate a transfer function. The low-field scan of each pair must be registered to its high-field scan and resampled
onto its grid; a pair that does not overlap in space, or does not correlate, is refused. The smoothness is chosen by
leaving each pair out in turn, so two pairs are needed, or --smoothness."""

_APPLY = """\
Filter IMAGE with the transfer function TF, add complex noise of the fitted strength and colour, take the magnitude.
Writes OUT/IMAGE_transfer.nii.gz and its .json, on the grid of IMAGE unless --voxel is given."""


def add_parser(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the command and its two verbs to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        "transfer",
        help="learn a scanner's blur and noise from pairs of scans, and apply them",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=raw,
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True)
    fit = verbs.add_parser("fit", parents=[common], help="from pairs of scans", description=_FIT, allow_abbrev=False)
    fit.add_argument("scans", type=Path, nargs="+", metavar="HF ULF", help="pairs: high-field, then low-field scan")
    fit.add_argument("--out", type=Path, required=True, metavar="TF", help="file to write, .npz")
    fit.add_argument(
        "--smoothness",
        type=_not_negative,
        metavar="X",
        help="weight of the smoothness, in units of the mean power of HF",
    )
    apply = verbs.add_parser("apply", parents=[common], help="to a scan", description=_APPLY, allow_abbrev=False)
    apply.add_argument("image", type=Path, metavar="IMAGE", help="high-field scan")
    apply.add_argument("transfer", type=Path, metavar="TF", help="what `mrkit transfer fit` wrote")
    apply.add_argument("out", type=Path, metavar="OUT", help="folder for the results; made if missing")
    apply.add_argument(
        "--voxel", type=positive, nargs=3, metavar="MM", help="voxel size of the scan along right, anterior, superior"
    )
    apply.add_argument("--seed", type=whole, default=0, metavar="N", help="of the noise (default: %(default)s)")
    for verb, function in ((fit, run_fit), (apply, run_apply)):
        verb.add_argument("--threads", type=at_least_one, metavar="N", help="CPU threads (default: all cores)")
        verb.add_argument("--force", action="store_true", help="replace results that exist")
        verb.set_defaults(run=function)


def run_fit(arguments: argparse.Namespace) -> int:
    """Fit, write, and say what was found; return 0."""
    from mrkit.devices import use_threads
    from mrkit.transfer.job import fit_files

    use_threads(arguments.threads)
    found = fit_files(arguments.scans, arguments.out, arguments.smoothness, force=arguments.force)
    sys.stdout.write(f"{arguments.out}\n")
    sys.stdout.write(f"smoothness {found.smoothness:g}\n")
    for name, error in zip(found.pairs, found.errors, strict=False):
        sys.stdout.write(f"left-out error {100 * error:.2f} % {name}\n")
    return 0


def run_apply(arguments: argparse.Namespace) -> int:
    """Degrade one scan, write and name it; return 0."""
    from mrkit.devices import use_threads
    from mrkit.transfer.job import apply_files

    use_threads(arguments.threads)
    voxel_mm = tuple(arguments.voxel) if arguments.voxel else None
    path = apply_files(
        arguments.image, arguments.transfer, arguments.out, arguments.seed, voxel_mm, force=arguments.force
    )
    sys.stdout.write(f"{path}\n")
    return 0


def _not_negative(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got '{text}'")
    return value
