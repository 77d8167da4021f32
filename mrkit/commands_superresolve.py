"""`mrkit superresolve`: this subject's own image on a finer grid."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mrkit.arguments import add_brain, add_run, positive

if TYPE_CHECKING:
    from mrkit.arguments import Commands

_DESCRIPTION = """\
Bring an ultra-low-field scan to a finer grid: an implicit neural representation of this subject alone is fitted so
that the model of the acquisition (voxels, blur, Rician noise) predicts the scan. Image and tissues come from one fit.
No other person's images are used."""

_EPILOG = """\
examples:
  mrkit superresolve sub-01_T1w.nii.gz out/ --voxel 1.0 --seed 1
  mrkit superresolve sub-01_T1w.nii.gz out/ --mask brain.nii.gz
  mrkit superresolve out/t1_ulf.nii.gz out/ --tissues out/on_the_scan_grid_dseg.nii.gz

writes into OUT, for an input IMAGE.nii.gz:
  IMAGE_sr.nii.gz                     the image, over the scan's field of view
  IMAGE_sr_dseg.nii.gz, IMAGE_sr_label-CSF|GM|WM_probseg.nii.gz    its tissues
  IMAGE_cubic.nii.gz                  cubic interpolation of the scan, for comparison
  IMAGE_residualz.nii.gz              (scan - prediction) / noise sd, on the scan's grid: structure here was missed
  IMAGE_sr_report.html                pictures of all of them in three planes

The noise of the scan is estimated, its protocol is read from the .json beside it where mrkit wrote one."""


def add_parser(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "superresolve",
        parents=[common],
        help="a finer image and tissues from an ultra-low-field scan",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="ultra-low-field scan, with or without its skull")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the results; made if missing")
    parser.add_argument(
        "--voxel",
        type=positive,
        default=1.0,
        metavar="MM",
        help="voxel size of the result in mm (default: %(default)s)",
    )
    add_brain(parser, "IMAGE")
    add_run(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Fit, write and name the files; return 0."""
    from mrkit.job_superresolve import SuperresolveJob, superresolve_files
    from mrkit.jobs import job_of, use_threads

    use_threads(arguments.threads)
    for path in superresolve_files(SuperresolveJob(job_of(arguments), arguments.voxel)):
        sys.stdout.write(f"{path}\n")
    return 0
