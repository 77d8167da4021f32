"""`mrkit train-iqt`: a network for image quality transfer, from high-field images, as a training file says."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mrkit.arguments import add_command, at_least_one

if TYPE_CHECKING:
    from mrkit.arguments import Commands

_DESCRIPTION = """\
Train the network that restores low-field scans in one pass. Pairs are simulated on the fly from high-field images and
label maps of heads of about 1 mm: random contrasts, voxels, point spreads and noise. CONFIG is a TOML file; paths in it
are relative to it. Writes the network as .safetensors with its card, .json. A run that was stopped goes on with
--resume and ends with the same result; a larger n_steps makes a finished one longer."""

_EPILOG = """\
a training file:
  out = "restorer.safetensors"
  held_out = ["sub-07_T1w.nii.gz"]        # for validation, never trained on
  [[images]]                              # brains are found by themselves; files that cannot be used are listed
  paths = ["heads/*_T1w.nii.gz"]
  weight = 1.0                            # share of each file
  [[labels]]                              # label maps with FreeSurfer's codes, painted anew each time
  paths = ["labels/*_dseg.nii.gz"]
  [cubes]
  n_cubes = 2                             # a batch; shape = [64, 64, 80], ranges = ["narrow", "wide"]
  [network]
  widths = [40, 80, 128]                  # n_blocks, n_transformers, fold: see iqt.UNetSettings
  [training]
  n_steps = 20000                         # learning_rate, n_warmup, ema, bf16, checkpoint_every, seed
  [licences]
  sub- = "CC0"                            # for the card, by the beginning of file names

examples:
  mrkit train-iqt training.toml
  mrkit train-iqt training.toml --resume --device cuda"""


def add_parser(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        common,
        "train-iqt",
        summary="train a network for image quality transfer on simulated pairs",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="training file, .toml")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint, if there is one")
    parser.add_argument("--force", action="store_true", help="replace results that exist")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1 (default: %(default)s)")
    parser.add_argument("--threads", type=at_least_one, metavar="N", help="CPU threads (default: all cores)")
    parser.set_defaults(run=run_command)


def run_command(arguments: argparse.Namespace) -> int:
    """Train, write and name the network; return 0."""
    from mrkit.devices import use_threads
    from mrkit.iqt_training.job import IqtTrainJob, train_iqt

    use_threads(arguments.threads)
    path = train_iqt(IqtTrainJob(arguments.config, arguments.resume, arguments.force, arguments.device))
    sys.stdout.write(f"{path}\n")
    return 0
