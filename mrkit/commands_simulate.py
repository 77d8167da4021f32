"""`mrkit simulate`: a 64 mT scan of a high-field brain."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mrkit.arguments import add_brain, add_run, positive

if TYPE_CHECKING:
    from mrkit.arguments import Commands

PRESET_NAMES = ("hyperfine-t1w", "hyperfine-t2w", "hyperfine-flair")

_DESCRIPTION = """\
Simulate a 64 mT scan of a brain that was imaged at high field: tissue contrast and SNR are calibrated to published
64 mT values (--preset) or to a real scan (--like), voxels and blur are those of the protocol, the noise is Rician."""

_EPILOG = """\
examples:
  mrkit simulate sub-01_T1w.nii.gz out/ --preset hyperfine-t1w --seed 1
  mrkit simulate sub-01_T1w.nii.gz out/ --like real_64mT_T1w.nii.gz
  mrkit simulate t1.mgz out/ --tissues aseg.mgz
  mrkit simulate t1.nii.gz out/ --mask brain.nii.gz --wm-snr 25

writes into OUT, for an input IMAGE.nii.gz:
  IMAGE_ulf.nii.gz                    the simulated scan; its .json holds protocol, gains, noise and seed
  IMAGE_truth.nii.gz                  the object without blur and noise, in the scan's contrast, on the input's grid
  IMAGE_dseg.nii.gz, IMAGE_label-CSF|GM|WM_probseg.nii.gz    the tissues that were used
  IMAGE_ulf_report.html               pictures, targets and what was measured"""


def add_parser(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "simulate",
        parents=[common],
        help="a realistic 64 mT scan from a high-field one",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="high-field scan, with or without its skull")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the results; made if missing")
    group = parser.add_argument_group("protocol")
    which = group.add_mutually_exclusive_group()
    which.add_argument(
        "--preset", choices=PRESET_NAMES, default=PRESET_NAMES[0], help="published protocol (default: %(default)s)"
    )
    which.add_argument("--like", type=Path, metavar="ULF", help="real low-field scan whose contrast and SNR to meet")
    group.add_argument(
        "--wm-snr", type=positive, metavar="SNR", help="SNR of white matter (default: that of the preset or scan)"
    )
    add_brain(parser, "IMAGE")
    add_run(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Simulate, write and name the files; return 0."""
    from mrkit.job_simulate import SimulateJob, simulate_files
    from mrkit.jobs import job_of, use_threads

    use_threads(arguments.threads)
    job = SimulateJob(job_of(arguments), arguments.preset, arguments.like, arguments.wm_snr)
    for path in simulate_files(job):
        sys.stdout.write(f"{path}\n")
    return 0
