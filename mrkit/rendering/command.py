"""`mrkit render`: a fitted field on another grid."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mrkit.arguments import add_command, positive

if TYPE_CHECKING:
    from mrkit.arguments import Commands

_DESCRIPTION = """\
Render a field that `mrkit superresolve --save-field` wrote, with other voxels or on the grid of another image. Nothing
is fitted again. Voxels finer than those of the fit show no more detail."""

_EPILOG = """\
examples:
  mrkit render out/sub-01_T1w_sr_field.safetensors fine/ --voxel 0.7
  mrkit render out/sub-01_T1w_sr_field.safetensors there/ --like sub-01_FLAIR.nii.gz

writes into OUT: FIELD.nii.gz, the image, and its tissues, FIELD_dseg.nii.gz and FIELD_label-CSF|GM|WM_probseg.nii.gz"""


def add_parser(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        common,
        "render",
        summary="a fitted field on another grid",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("field", type=Path, metavar="FIELD", help="fitted field (.safetensors)")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the results; made if missing")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--voxel", type=positive, metavar="MM", help="voxel size over the field's own field of view")
    where.add_argument(
        "--like",
        type=Path,
        metavar="IMAGE",
        help="on the grid of this file, in the same world space; it may hold anything: a scan, labels, many volumes",
    )
    parser.add_argument("--force", action="store_true", help="replace results that exist")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Render, write and name the files; return 0."""
    from mrkit.rendering.job import render_files

    written = render_files(
        arguments.field, arguments.out, voxel_mm=arguments.voxel, like=arguments.like, force=arguments.force
    )
    for path in written:
        sys.stdout.write(f"{path}\n")
    return 0
