"""`mrkit simulate`: a 64 mT scan of a high-field brain."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mrkit.arguments import add_brain, add_command, add_run, at_least_one, not_negative, number, positive, tissue_number

if TYPE_CHECKING:
    from mrkit.arguments import Commands

PRESET_NAMES = ("hyperfine-t1w", "hyperfine-t2w", "hyperfine-flair")
GAUGES = ("absolute", "prior", "none")

_DESCRIPTION = """\
Simulate a 64 mT scan of a brain that was imaged at high field. Tissue contrast and SNR are calibrated to published
64 mT values (--preset), to real scans (--like) or to the Bloch equations of a sequence (--protocol); voxels, blur and
noise are those of the protocol, and any of it can be changed."""

_EPILOG = """\
examples:
  mrkit simulate sub-01_T1w.nii.gz out/ --preset hyperfine-t1w --seed 1
  mrkit simulate sub-01_T1w.nii.gz out/ --like real_64mT_T1w.nii.gz       # its SNR, noise colour and edge spread
  mrkit simulate sub-01_T1w.nii.gz out/ --like ulf_scans/                 # drawn from the spread over a folder
  mrkit simulate sub-01_T2w.nii.gz out/ --protocol ulf_T2w.json --voxel 1.6 1.6 5 --wm-snr 40
  mrkit simulate t1.nii.gz out/ --slice-axis R --tilt 5 0 10 --target-snr WM=60 GM=48 CSF=20
  mrkit simulate t1.nii.gz out/ --artefacts mild --k-space
  mrkit simulate t1.mgz out/ --tissues aseg.mgz

writes into OUT, for an input IMAGE.nii.gz:
  IMAGE_ulf.nii.gz                    the simulated scan; its .json holds protocol, gains, noise, artefacts and seed
  IMAGE_truth.nii.gz                  the object without blur and noise, in the scan's contrast, on the input's grid
  IMAGE_dseg.nii.gz, IMAGE_label-CSF|GM|WM_probseg.nii.gz    the tissues that were used
  IMAGE_ulf_kspace.npz                with --k-space: complex k-space, channels first, and where it lies
  IMAGE_ulf_report.html               pictures, targets and what was measured

A protocol is a BIDS sidecar: {"MagneticFieldStrength": 0.064, "RepetitionTime": 2.0, "EchoTime": 0.19,
"EchoTrainLength": 80, "SeriesDescription": "T2"}. A tissue table is TOML or JSON, relaxation times in seconds:
[WM] t1_s = 0.3, t2_s = 0.08, pd = 0.7, field_t = 0.064, source = "own measurement"."""


def add_parser(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        common,
        "simulate",
        summary="a realistic 64 mT scan from a high-field one",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="high-field scan, with or without its skull")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the results; made if missing")
    _add_protocol(parser)
    _add_geometry(parser)
    _add_noise(parser)
    add_brain(parser, "IMAGE")
    add_run(parser)
    parser.set_defaults(run=run)


def _add_protocol(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("protocol and contrast")
    which = group.add_mutually_exclusive_group()
    which.add_argument(
        "--preset", choices=PRESET_NAMES, default=PRESET_NAMES[0], help="published protocol (default: %(default)s)"
    )
    which.add_argument(
        "--like",
        type=Path,
        nargs="+",
        metavar="ULF",
        help="real low-field scans, or a folder of them, whose voxels, contrast, SNR, noise colour and edge spread to "
        "meet; of several, SNRs are drawn from their distribution",
    )
    which.add_argument(
        "--protocol",
        type=Path,
        metavar="JSON",
        help="BIDS sidecar of a sequence: contrast by the Bloch equations (needs --voxel and --wm-snr)",
    )
    group.add_argument(
        "--like-tissues",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="tissues of the one scan of --like: a label map or three probability maps, as for --tissues",
    )
    group.add_argument(
        "--field", type=positive, metavar="TESLA", help="field of --protocol (default: as its sidecar says)"
    )
    group.add_argument(
        "--tissue-table", type=Path, metavar="FILE", help="TOML or JSON with T1, T2 and PD that replace those built in"
    )
    group.add_argument(
        "--target-snr",
        type=tissue_number,
        nargs="+",
        metavar="TISSUE=SNR",
        help="SNR (signal over noise sd per real channel) of WM, GM or CSF, instead of the protocol's",
    )
    group.add_argument(
        "--wm-snr", type=positive, metavar="SNR", help="SNR of white matter, to which all others are scaled"
    )
    group.add_argument(
        "--gauge",
        choices=GAUGES,
        default=GAUGES[0],
        help="what fixes the gains: the SNR of every tissue (absolute, the default); contrasts, with the gains nearest "
        "to Bloch ratios (prior); contrasts alone as published by HULFSynth, for comparison (none)",
    )


def _add_geometry(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("geometry")
    group.add_argument(
        "--voxel",
        type=positive,
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="voxel in mm, the distance between slices last (default: the protocol's)",
    )
    group.add_argument(
        "--slice-thickness",
        type=positive,
        metavar="MM",
        help="slice thickness where it is not the distance between slices: less leaves gaps, more makes them overlap",
    )
    group.add_argument(
        "--slice-axis",
        choices=("R", "A", "S"),
        help="axis across the slices: R sagittal, A coronal, S axial (default: the protocol's)",
    )
    group.add_argument(
        "--tilt",
        type=number,
        nargs=3,
        metavar=("R", "A", "S"),
        help="degrees by which the scan is turned about the axes right, anterior, superior",
    )


def _add_noise(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("noise, artefacts, k-space")
    group.add_argument(
        "--noise-fwhm",
        type=not_negative,
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="colour of the noise: FWHM in mm of the kernel that it was filtered with; 0 0 0 white",
    )
    group.add_argument(
        "--channels",
        type=at_least_one,
        metavar="N",
        help="receive channels (default: 1); several give a noncentral chi",
    )
    group.add_argument(
        "--artefacts",
        metavar="mild|strong|JSON",
        help="draw artefacts of 64 mT scanners, or apply those of a file: a sidecar of mrkit, or its block Artefacts",
    )
    group.add_argument(
        "--pixel-bandwidth",
        type=positive,
        metavar="HZ",
        help="readout bandwidth per voxel of --artefacts mild or strong, which distorts by the field's errors over it "
        "(default: PixelBandwidth in the sidecar of --like, else drawn)",
    )
    group.add_argument("--k-space", action="store_true", help="write the complex k-space as well")


def run(arguments: argparse.Namespace) -> int:
    """Simulate, write and name the files; return 0, or 3 where reference scans were left out."""
    from mrkit.devices import use_threads
    from mrkit.files.warn import exit_code
    from mrkit.simulation.job import job_of_simulation, simulate_files

    use_threads(arguments.threads)
    job = job_of_simulation(arguments)
    for path in simulate_files(job):
        sys.stdout.write(f"{path}\n")
    return exit_code(job.left_out)
