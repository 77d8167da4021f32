"""`mrkit superresolve`: this subject's own image on a finer grid."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mrkit.arguments import add_brain, add_command, add_run, positive, whole

if TYPE_CHECKING:
    from mrkit.arguments import Commands

PRIORS = ("none", "denoiser")
LIKELIHOODS = ("rician", "absolute")
GAUGES = ("absolute", "none")

_DESCRIPTION = """\
Bring an ultra-low-field scan to a finer grid: an implicit neural representation of this subject alone is fitted so
that the model of the acquisition (voxels, blur, Rician noise) predicts the scan. Image and tissues come from one fit.
No other person's images are used, unless you ask for --prior denoiser or --init."""

_EPILOG = """\
examples:
  mrkit superresolve sub-01_T1w.nii.gz out/ --voxel 1.0 --seed 1
  mrkit superresolve sub-01_T1w.nii.gz out/ --preview             a smooth image in seconds: is the input right?
  mrkit superresolve sub-01_T1w.nii.gz out/ --uncertainty 6       with maps of how far to trust it
  mrkit superresolve sub-01_T2w.nii.gz out/ --slice-thickness 4   slices of 4 mm every 5 mm; else by the sidecar
  mrkit superresolve sub-01_T1w.nii.gz out/ --compare             every method on this scan, in one table
  mrkit superresolve ax_T1w.nii.gz cor_T1w.nii.gz sag_T1w.nii.gz out/    several scans of one person, one image
  mrkit superresolve out/t1_ulf.nii.gz out/ --tissues out/on_the_scan_grid_dseg.nii.gz

writes into OUT, for an input IMAGE.nii.gz:
  IMAGE_sr.nii.gz                     the image, over the scan's field of view
  IMAGE_sr_dseg.nii.gz, IMAGE_sr_label-CSF|GM|WM_probseg.nii.gz    its tissues
  IMAGE_cubic.nii.gz                  cubic interpolation of the scan, for comparison
  IMAGE_residualz.nii.gz              (scan - prediction) / noise sd, on the scan's grid: structure here was missed
  IMAGE_sr_sd.nii.gz                  with --uncertainty: standard deviation of the image, what the scan leaves open
                                      included
  IMAGE_sr_nullspace.nii.gz           with --uncertainty: the part of the image that the scan cannot see
  IMAGE_sr_mapped.nii.gz              with --contrast-of: the image in the contrast of that scan
  IMAGE_sr_field.safetensors          with --save-field: the fitted field, for `mrkit render`
  IMAGE_sr_comparison.json            with --compare: the table of the report
  IMAGE_sr_report.html                pictures of all of them in three planes

Of several scans each contrast gets one IMAGE_sr, named by its first scan (and by its folder, ses-1_T1w_sr, where two
scans have one name) and on the axes of the first scan of all; they are aligned within the fit, and share the tissues.
Poses, scales and the weights of slices are in the sidecars. All options work alike: --init serves the contrast whose
scans it explains best, --contrast-of that of its own weighting.

The noise of the scan is estimated. Its point spread is read from the .json beside it: as mrkit wrote it, or from slice
thickness and acquired matrix as dcm2niix writes them. A scan that was interpolated, and does
not say so, is fitted on the voxels that its detail asks for, and its residuals are written on these.
--uncertainty and --compare take many fits. Each finished one is kept in OUT/.IMAGE_members until all results are
written: the same command, run again after an interruption, goes on where it was."""


def add_parser(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        common,
        "superresolve",
        summary="a finer image and tissues from an ultra-low-field scan",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument(
        "images",
        type=Path,
        nargs="+",
        metavar="IMAGE",
        help="ultra-low-field scan, with or without its skull; several of one person (other orientations or contrasts) "
        "give one image, on the first one's axes",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the results; made if missing")
    parser.add_argument(
        "--voxel",
        type=positive,
        default=1.0,
        metavar="MM",
        help="voxel size of the result in mm (default: %(default)s)",
    )
    _add_resolution(parser)
    _add_fit(parser)
    _add_contrast(parser)
    _add_trust(parser)
    add_brain(parser, "IMAGE")
    add_run(parser)
    _add_device(parser)
    parser.set_defaults(run=run)


def _add_resolution(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("resolution of the scan, where its voxels do not tell it")
    group.add_argument(
        "--slice-thickness",
        type=positive,
        metavar="MM",
        help="width of the slice profile: less than the distance between slices where there are gaps, more where they "
        "overlap (default: SliceThickness in the sidecar, else the voxel)",
    )
    group.add_argument(
        "--acquired-voxel",
        type=positive,
        nargs=2,
        metavar=("X", "Y"),
        help="acquired voxel in mm along the two axes in plane, of a scan that was interpolated to finer ones "
        "(default: by acquired and reconstructed matrix in the sidecar, else by the band that the scan fills)",
    )


def _add_fit(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("fit")
    group.add_argument(
        "--regularisation",
        type=_regularisation,
        default=None,
        metavar="auto|W",
        help="weight of total variation per square mm (WM = 1); auto, the default, takes the one that predicts scan "
        "voxels best that it has not seen",
    )
    group.add_argument(
        "--prior",
        choices=PRIORS,
        default=PRIORS[0],
        help="denoiser: pull the image towards what a network, trained on ordinary brains of other people, holds for "
        "likely (default: %(default)s)",
    )
    group.add_argument(
        "--likelihood",
        choices=LIKELIHOODS,
        default=LIKELIHOODS[0],
        help="absolute: sum absolute errors, which spikes and ghosts move less (default: %(default)s)",
    )
    group.add_argument(
        "--bias-field", action="store_true", help="find a smooth receive field with the image, and take it out of it"
    )
    group.add_argument(
        "--init",
        type=Path,
        metavar="FILE",
        help="start from this image or field (.safetensors): an earlier one of the same person, or a template; detail "
        "that the scan does not show may then be that image's",
    )
    group.add_argument(
        "--noise-sd",
        type=positive,
        metavar="SD",
        help="noise of the scan per real channel, in its units; by default that of `mrkit measure`, the larger "
        "value where its air and its tissue differ widely",
    )
    group.add_argument("--preview", action="store_true", help="no fit: the smooth image that it would start from")


def _add_contrast(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("contrast")
    group.add_argument(
        "--contrast-of",
        type=Path,
        metavar="FILE",
        help="write the image in the contrast of this high-field scan, too: gains of the tissues, calibrated as "
        "`mrkit simulate` does, are undone by one rising curve. It may be another person's, since nothing of its "
        "anatomy enters; nothing is gained but the looks",
    )
    group.add_argument(
        "--gauge",
        choices=GAUGES,
        default=GAUGES[0],
        help="what fixes these gains: the SNR of every tissue, or contrasts alone as published by HULFSynth (none) "
        "(default: %(default)s)",
    )


def _add_trust(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("trust")
    group.add_argument(
        "--uncertainty",
        type=_even,
        default=0,
        metavar="N",
        help="fit N more times, to parts of the scan and from other seeds, and write the image's standard deviation "
        "and the part of it that the scan cannot see; N is even, 6 is a good number",
    )
    group.add_argument(
        "--compare",
        action="store_true",
        help="run every method on this scan, from the scan alone, and judge them by what needs no truth; an hour or "
        "more at 1 mm",
    )
    group.add_argument("--save-field", action="store_true", help="write the fitted field, for `mrkit render`")


def _add_device(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("device")
    group.add_argument(
        "--device",
        default="cpu",
        metavar="NAME",
        help="where fits run: cpu, cuda, cuda:1 or another device of torch; what precedes and follows them runs on the "
        "CPU (default: %(default)s)",
    )


def _regularisation(text: str) -> float | None:
    return None if text == "auto" else positive(text)


def _even(text: str) -> int:
    value = whole(text)
    if value % 2:
        raise argparse.ArgumentTypeError(f"expected an even number (fits come in pairs), got '{text}'")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Fit, write and name the files; return 0."""
    from mrkit.devices import use_threads
    from mrkit.files.job import job_of
    from mrkit.simulation.protocol import Gauge
    from mrkit.superresolution.job import SuperresolveJob, superresolve_files

    use_threads(arguments.threads)
    arguments.image, *others = arguments.images
    job = SuperresolveJob(
        job_of(arguments),
        tuple(others),
        arguments.voxel,
        tv_weight=arguments.regularisation,
        prior=arguments.prior,
        likelihood=arguments.likelihood,
        bias_field=arguments.bias_field,
        init=arguments.init,
        n_members=arguments.uncertainty,
        compare=arguments.compare,
        save_field=arguments.save_field,
        preview=arguments.preview,
        device=arguments.device,
        slice_thickness_mm=arguments.slice_thickness,
        acquired_voxel_mm=tuple(arguments.acquired_voxel) if arguments.acquired_voxel else None,
        contrast_of=arguments.contrast_of,
        gauge=Gauge(arguments.gauge),
        noise_sd=arguments.noise_sd,
    )
    for path in superresolve_files(job):
        sys.stdout.write(f"{path}\n")
    return 0
