"""`mrkit measure`: contrast, noise and sharpness of a scan."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mrkit.arguments import add_brain, at_least_one

if TYPE_CHECKING:
    from mrkit.arguments import Commands

_DESCRIPTION = """\
Measure a scan of a brain, high-field or ultra-low-field: mean, SNR and CNR of its tissues with 95 % intervals, the
noise and how it was found, the colour of the noise, and the edge spread along each axis beside the nominal voxel."""

_EPILOG = """\
examples:
  mrkit measure ulf_T1w.nii.gz
  mrkit measure ulf_T1w.nii.gz --tissues ulf_dseg.nii.gz --json > measured.json
  mrkit measure stripped_T2w.nii.gz --weighting T2w

Signals are free of the bias that Rician noise adds; SNR is signal over the noise sd of one real channel. Noise comes
from the air around the head; where that was set to 0 or filtered, from second differences within a tissue, which is
less certain. The noise kernel is what white noise would have been filtered with (0: white). The edge spread is the full
width at half maximum of the line spread of the borders that the scan shows; soft borders widen it, so compare scans of
like objects. Intervals answer for noise, anatomy and noise estimate, not for wrong tissue maps."""


def add_parser(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "measure",
        parents=[common],
        help="contrast, noise and sharpness of a scan",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("image", type=Path, metavar="SCAN", help="scan of a brain, with or without its skull")
    add_brain(parser, "SCAN")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--threads", type=at_least_one, metavar="N", help="CPU threads (default: all cores)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what was measured; return 0."""
    from mrkit.job_measure import as_json, as_text, measure_file
    from mrkit.jobs import Job, use_threads

    use_threads(arguments.threads)
    job = Job(
        image=arguments.image,
        out=Path(),
        mask=arguments.mask,
        masker=arguments.masker,
        tissues=tuple(arguments.tissues or ()),
        segmenter=arguments.segmenter,
        weighting=arguments.weighting,
    )
    found = measure_file(job)
    sys.stdout.write((as_json(found) if arguments.json else as_text(found)) + "\n")
    return 0
