"""`mrkit enhance`: one low-field scan restored by a trained network, tethered to the scan and audited."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mrkit.arguments import MASKERS, add_command, at_least_one, positive

if TYPE_CHECKING:
    from mrkit.arguments import Commands

_DESCRIPTION = """\
Restore one low-field scan in a minute or two by a network that was trained on simulated pairs (`mrkit train-iqt`).
It starts from the exact Gaussian estimate through the scan's own operator, and the result is moved back to the scan
wherever it contradicts it. Outside the brain the result is that estimate alone.

The result is SYNTHETIC beyond the scan's resolution: an audit says where the scan does not support it, and its sidecar
says so too. `mrkit superresolve` makes an image from the scan alone, without training, in minutes."""

_EPILOG = """\
examples:
  mrkit enhance sub-01_T1w.nii.gz out/ --network restorer.safetensors
  mrkit enhance sub-01_T1w.nii.gz out/ --network restorer.safetensors --mask brain.nii.gz --passes 1

writes into OUT: IMAGE_enhanced.nii.gz; _enhanced_start, the estimate it began from; _enhanced_sd, the spread over
mirrored passes; _enhanced_residualz on the scan's grid, beyond 5 where the scan contradicts the image; and a page"""


def add_parser(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        common,
        "enhance",
        summary="restore a low-field scan by a trained network, with an audit",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="low-field scan (NIfTI or MGH), head or brain")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the results; made if missing")
    parser.add_argument("--network", type=Path, required=True, metavar="FILE", help="network, .safetensors")
    parser.add_argument(
        "--voxel", type=positive, default=1.0, metavar="MM", help="of the result (default: %(default)s)"
    )
    scan = parser.add_argument_group("scan")
    scan.add_argument(
        "--mask", type=Path, metavar="FILE", help="brain mask on the grid of IMAGE (default: it is found)"
    )
    scan.add_argument(
        "--masker", choices=MASKERS, default=MASKERS[0], help="what finds the brain (default: %(default)s)"
    )
    scan.add_argument("--noise-sd", type=positive, metavar="SD", help="noise per real channel, in the scan's units")
    group = parser.add_argument_group("network")
    group.add_argument("--passes", type=int, choices=range(1, 9), default=8, help="over mirrored copies (default: 8)")
    group.add_argument(
        "--no-tether", action="store_true", help="leave the network's image as it is, audited all the same"
    )
    run = parser.add_argument_group("run")
    run.add_argument("--threads", type=at_least_one, metavar="N", help="CPU threads (default: all cores)")
    run.add_argument("--no-report", action="store_true", help="write images only, no HTML page")
    run.add_argument("--force", action="store_true", help="replace results, and go on outside the network's ranges")
    parser.set_defaults(run=run_command)


def run_command(arguments: argparse.Namespace) -> int:
    """Enhance, write and name the files; return 0."""
    from mrkit.devices import use_threads
    from mrkit.enhancement.enhance import TRUST_SD
    from mrkit.enhancement.job import EnhanceJob, enhance_to_folder

    use_threads(arguments.threads)
    _, written = enhance_to_folder(
        EnhanceJob(
            image=arguments.image,
            out=arguments.out,
            network=arguments.network,
            mask=arguments.mask,
            masker=arguments.masker,
            voxel_mm=arguments.voxel,
            noise_sd=arguments.noise_sd,
            n_mirrored=arguments.passes,
            trust_sd=None if arguments.no_tether else TRUST_SD,
            with_report=not arguments.no_report,
            force=arguments.force,
        )
    )
    for path in written:
        sys.stdout.write(f"{path}\n")
    return 0
