"""`mrkit quantify`: maps of T1, T2 and PD from the raw data of a fingerprint."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mrkit.arguments import add_command, add_run, at_least_one, not_negative, number, positive, whole

if TYPE_CHECKING:
    from mrkit.arguments import Commands

METHODS = ("mri2qmap", "cg", "lrtv", "llr", "svd")
K_UNITS = (
    *("cycles/voxel", "rad/voxel", "cycles/FOV"),
    *("cycles/mm", "cycles/cm", "cycles/m", "rad/mm", "rad/cm", "rad/m"),
)
_DEMO_OUT = Path("quantify-demo")

_DESCRIPTION = """\
Reconstruct T1, T2 and PD from the raw data (k-space) of a magnetic resonance fingerprint. Signals of the sequence are
computed for a grid of T1 and T2; images of their strongest temporal components are reconstructed from all coils and
matched to these signals, voxel by voxel and between the points of the grid. Undersampled data need a prior: the default
method denoises weighted images that the maps imply, with a net that was trained on ordinary weighted images only."""

_EPILOG = """\
examples:
  mrkit quantify --demo                                       a digital head, 8-fold undersampled; see quantify-demo/
  mrkit quantify raw.h5 out/ --sequence fisp.csv --ti 0.02
  mrkit quantify raw.npz out/ --compare                       the sequence is in the file; all methods in one table
  mrkit quantify raw.h5 out/ --sequence fisp.csv --b1 0.7 1.3 --weighted 0.5 0.015 0
  mrkit quantify raw.h5 out/ --sequence bssfp.csv --balanced --slice-profile profile.csv

what it reads:
  RAW         ISMRMRD (.h5) with its trajectory, or .npz with samples (coils, N), k_cyc_per_mm (N, 2 or 3), frame (N,),
              n_frames, grid_shape, grid_affine and, where known, noise, flip_deg, tr_s, te_s, ti_s; of ISMRMRD, lines
              whose flags say that they are no part of the image (calibration, navigators, dummies...) are left out
  --sequence  a table (text with any usual separator, or .mat) with one line a frame and the columns flip_deg (or
              flip_rad), tr_ms (or tr_s, tr_us), te_ms and, where wanted, phase_deg; an inversion before the train is
              said by --ti
  --slice-profile  a table with the column flip_factor (flip angle over the nominal one), one line for each place across
              the slice, and, where wanted, weight

writes into OUT, for an input RAW.h5, each .nii.gz with a .json that names its unit:
  RAW_desc-seconds_T1map.nii.gz, RAW_desc-seconds_T2map.nii.gz           in seconds, 0 outside the object
  RAW_desc-relative_PDmap.nii.gz                                         in the unit of the data over that of the coils
  RAW_desc-factor_TB1map.nii.gz                                          with --b1: flip angle over the nominal one
  RAW_desc-sdseconds_T1map.nii.gz, ..._T2map.nii.gz                      least sd by the noise (Cramer-Rao)
  RAW_desc-sdrelative_PDmap.nii.gz                                       the same of PD, in its unit
  RAW_desc-relative_residual.nii.gz                                      share of the signal that no atom explains
  RAW_desc-synthetic_T1w.nii.gz, ..._T2w.nii.gz, ..._FLAIR.nii.gz        or what --weighted asks for
  RAW_quantify_report.html                                               all of them on fixed colour scales

methods:
  mri2qmap    data and maps agree with one another and with denoised weighted images (alternating directions)
  lrtv        least squares with the total variation of the components
  llr         least squares with locally low rank
  cg          least squares, regularised by stopping early; enough for little undersampling
  svd         density-compensated adjoint: no inversion; aliasing remains"""


def add_parser(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        common,
        "quantify",
        summary="T1, T2 and PD maps from the raw data of a fingerprint",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("raw", type=Path, nargs="?", metavar="RAW", help="raw data, .h5 (ISMRMRD) or .npz")
    parser.add_argument("out", type=Path, nargs="?", metavar="OUT", help="folder for the results; made if missing")
    parser.add_argument(
        "--demo",
        type=Path,
        nargs="?",
        const=_DEMO_OUT,
        metavar="DIR",
        help="instead of RAW and OUT: simulate raw data of a digital head, quantify them, compare with the truth; "
        f"results go to DIR ({_DEMO_OUT}); under three minutes on two cores",
    )
    _add_data(parser)
    _add_method(parser)
    add_run(parser)
    parser.set_defaults(run=run, refuse=parser.error)


def _add_data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sequence and data")
    group.add_argument("--sequence", type=Path, metavar="FILE", help="table of the train; needed where RAW has none")
    group.add_argument("--ti", type=not_negative, metavar="S", help="time in s from the inversion to the first pulse")
    group.add_argument(
        "--inversion-efficiency",
        type=not_negative,
        default=1.0,
        metavar="E",
        help="of the inversion, after which M is -E of equilibrium: 1 perfect, 0 saturates (default: %(default)s)",
    )
    group.add_argument("--balanced", action="store_true", help="the train is balanced SSFP (default: FISP)")
    group.add_argument(
        "--off-resonance",
        type=number,
        default=0.0,
        metavar="HZ",
        help="of a balanced train, one for the whole object (default: 0; a field that varies is not fitted)",
    )
    group.add_argument(
        "--slice-profile", type=Path, metavar="FILE", help="flip angles across the slice (default: even)"
    )
    group.add_argument(
        "--trajectory", type=Path, metavar="FILE", help="k-space positions (.npz), where RAW has none or wrong ones"
    )
    group.add_argument(
        "--k-unit",
        choices=K_UNITS,
        metavar="UNIT",
        help=f"of the positions in k-space: {', '.join(K_UNITS)} (default: cycles/voxel, -0.5 to 0.5, also called "
        "1/pixel, in ISMRMRD; cycles/mm in .npz)",
    )
    group.add_argument(
        "--fov", type=positive, nargs=3, metavar="MM", help="field of view x y z, where an ISMRMRD header lacks it"
    )
    group.add_argument(
        "--frame-counter",
        metavar="NAME",
        help="counter of an ISMRMRD file that tells the frame, such as repetition (default: the one that varies)",
    )
    group.add_argument("--slice", type=whole, metavar="N", help="one of several slices of an ISMRMRD file, from 0")
    group.add_argument(
        "--encoding", type=whole, metavar="N", help="one of several encodings of an ISMRMRD file, from 0"
    )
    group.add_argument(
        "--coils", type=at_least_one, metavar="N", help="compress to N virtual coils (default: keep all)"
    )
    group.add_argument("--mask", type=Path, metavar="FILE", help="NIfTI of the object on RAW's grid (default: found)")


def _add_method(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("reconstruction and maps")
    group.add_argument("--method", choices=METHODS, default=METHODS[0], help="see below (default: %(default)s)")
    group.add_argument("--compare", action="store_true", help="all methods in the report; maps of --method are written")
    group.add_argument(
        "--denoiser",
        type=Path,
        metavar="FILE",
        help="a denoiser by mrkit train-denoiser for mri2qmap, 2-D or, for volumes, 3-D (default: that of mrkit)",
    )
    group.add_argument(
        "--rank", type=at_least_one, default=5, metavar="K", help="temporal components (default: %(default)s)"
    )
    for name, low, high in (("t1", 0.1, 5.0), ("t2", 0.01, 2.0)):
        group.add_argument(
            f"--{name}-range",
            type=positive,
            nargs=2,
            default=(low, high),
            metavar=("S", "S"),
            help=f"{name.upper()} of the dictionary in s (default: {low:g} {high:g})",
        )
    group.add_argument(
        "--b1", type=positive, nargs=2, metavar=("LOW", "HIGH"), help="also fit the flip angle, within these factors"
    )
    group.add_argument(
        "--weighted",
        type=not_negative,
        nargs=3,
        action="append",
        metavar=("TR", "TE", "TI"),
        help="compute the image of a spin echo with these times in s, TI 0 for no inversion; may be given several "
        "times (default: T1w, T2w and FLAIR)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Quantify, write and name the files; return 0."""
    given = arguments.raw is not None
    if (arguments.demo is None) != given or given != (arguments.out is not None):
        arguments.refuse("give RAW and OUT, or --demo alone")
    from mrkit.devices import use_threads

    use_threads(arguments.threads)
    if arguments.demo is not None:
        from mrkit.quantification.demo import run_quantify_demo

        page = run_quantify_demo(arguments.demo, seed=arguments.seed, force=arguments.force)
        sys.stdout.write(f"{page}\n")
        return 0
    from mrkit.quantification.job import job_of, quantify_files

    for path in quantify_files(job_of(arguments)):
        sys.stdout.write(f"{path}\n")
    return 0
