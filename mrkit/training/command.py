"""`mrkit train-denoiser`: the denoiser that other commands can use as a prior, from ordinary images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mrkit.arguments import add_command, at_least_one, whole

if TYPE_CHECKING:
    from mrkit.arguments import Commands

_DESCRIPTION = """\
Train a denoiser on ordinary magnitude images of any weighting, on contrasts computed from T1, T2 and PD maps, and on
label maps with intensities at random. Writes OUT.safetensors with a model card, OUT.json. A run that was stopped goes
on with --resume and ends with the same result."""

_EPILOG = """\
examples:
  mrkit train-denoiser brain3d.safetensors --images t1/ flair/ --labels labels/ --dims 3
  mrkit train-denoiser brain2d.safetensors --images t1/ --maps maps/ --dims 2 --steps 50000 --resume"""


def add_parser(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        common,
        "train-denoiser",
        summary="train a denoiser, the prior of reconstructions, on a folder of images",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="file to write, .safetensors")
    data = parser.add_argument_group("training data")
    for name, what in (
        ("--images", "NIfTI or MGH images, or folders of them"),
        ("--maps", ".npz with t1_ms, t2_ms and pd, slices first, or folders of them"),
        ("--labels", "label maps of heads, or folders of them"),
    ):
        data.add_argument(name, type=Path, nargs="+", metavar="PATH", default=(), help=what)
    data.add_argument("--heads", type=whole, default=0, metavar="N", help="digital heads in addition")
    group = parser.add_argument_group("training")
    group.add_argument("--dims", type=int, choices=(2, 3), default=3, help="slices or volumes (default: %(default)s)")
    group.add_argument("--steps", type=at_least_one, default=20_000, metavar="N", help="(default: %(default)s)")
    group.add_argument("--bf16", action="store_true", help="compute in bfloat16: faster on processors that have it")
    group.add_argument("--resume", action="store_true", help="go on from the checkpoint beside OUT, if there is one")
    run = parser.add_argument_group("run")
    run.add_argument("--seed", type=whole, default=0, metavar="N", help="all randomness follows from it")
    run.add_argument("--threads", type=at_least_one, metavar="N", help="CPU threads (default: all cores)")
    run.add_argument("--force", action="store_true", help="replace results that exist")
    parser.set_defaults(run=run_command)


def run_command(arguments: argparse.Namespace) -> int:
    """Train, write and name the denoiser; return 0, or 3 where images in folders were left out."""
    from mrkit.devices import use_threads
    from mrkit.files.warn import exit_code
    from mrkit.training.job import TrainJob, train_denoiser

    use_threads(arguments.threads)
    path, left_out = train_denoiser(
        TrainJob(
            out=arguments.out,
            images=tuple(arguments.images),
            maps=tuple(arguments.maps),
            labels=tuple(arguments.labels),
            n_dims=arguments.dims,
            n_steps=arguments.steps,
            n_heads=arguments.heads,
            bf16=arguments.bf16,
            seed=arguments.seed,
            resume=arguments.resume,
            force=arguments.force,
        )
    )
    sys.stdout.write(f"{path}\n")
    return exit_code(left_out)
