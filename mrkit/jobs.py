"""What the commands simulate and superresolve are given, and reading it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mrcore.brainmask import is_skull_stripped, require_reliable
from mrcore.brainmask_backends import deepbet_brain_mask
from mrcore.io import load_mask, load_tissues, load_volume
from mrcore.segment import Segmenter
from mrcore.sidecar import file_sha256, stem
from mrcore.volume import TissueMap, Volume, require_same_grid
from mrkit.outputs import Target
from mrkit.report import InputFile
from mrkit.segmenters import segmenter_named, weighting_of


@dataclass(frozen=True)
class Job:
    """Files and settings that both commands share.

    Attributes:
        image: the scan to work on.
        out: folder of the results.
        mask: brain mask; None to find the brain.
        masker: what finds the brain of a head, `template` or `deepbet`.
        tissues: one label map or three probability maps; empty to segment.
        segmenter: name of what segments.
        weighting: contrast of the image (T1w, T2w, FLAIR); None to tell it from sidecar or name.
        seed: of all randomness.
        with_report: whether to write the HTML page.
        force: whether to replace what is there.
    """

    image: Path
    out: Path
    mask: Path | None = None
    masker: str = "template"
    tissues: tuple[Path, ...] = ()
    segmenter: str = "mrkit"
    weighting: str | None = None
    seed: int = 0
    with_report: bool = True
    force: bool = False

    @property
    def target(self) -> Target:
        """Where the results go and how their names begin."""
        return Target(self.out, stem(self.image))

    @property
    def files(self) -> dict[str, Path]:
        """The files that are read, by role."""
        several = len(self.tissues) > 1
        tissues = {f"tissues {n}" if several else "tissues": path for n, path in enumerate(self.tissues, start=1)}
        return {"image": self.image, **({"mask": self.mask} if self.mask else {}), **tissues}

    @property
    def segmenter_used(self) -> str:
        """What the tissues come from, for sidecars and reports."""
        return "given tissue maps" if self.tissues else self.segmenter

    @property
    def mask_used(self) -> str:
        """What the brain mask comes from, where the image is not skull-stripped."""
        return "given mask" if self.mask else "given tissue maps" if self.tissues else self.masker


@dataclass(frozen=True, eq=False)
class Subject:
    """One image, the mask and the tissues that were given for it, its weighting, and what segments it."""

    volume: Volume
    mask: Tensor | None
    tissues: TissueMap | None
    weighting: str
    segmenter: Segmenter


def job_of(arguments: argparse.Namespace) -> Job:
    """Return the job that the shared arguments describe."""
    return Job(
        image=arguments.image,
        out=arguments.out,
        mask=arguments.mask,
        masker=arguments.masker,
        tissues=tuple(arguments.tissues or ()),
        segmenter=arguments.segmenter,
        weighting=arguments.weighting,
        seed=arguments.seed,
        with_report=not arguments.no_report,
        force=arguments.force,
    )


def read_subject(job: Job) -> Subject:
    """Read image, mask and tissues, and check that they share a grid.

    Raises:
        BadInputError: a file that cannot be used.
        GridMismatchError: mask or tissues on another grid than the image.
        MissingExtraError: the segmenter or the masker is not installed.
    """
    volume = load_volume(job.image)
    mask = load_mask(job.mask, volume.grid) if job.mask else None
    tissues = load_tissues(job.tissues) if job.tissues else None
    if mask is None and tissues is None and job.masker == "deepbet" and not is_skull_stripped(volume):
        mask = require_reliable(deepbet_brain_mask(volume)).mask
    if tissues is not None:
        require_same_grid(volume.grid, tissues.grid, f"the image {job.image} and its tissue maps")
    weighting = job.weighting or weighting_of(volume, job.image.name)
    return Subject(volume, mask, tissues, weighting, segmenter_named(job.segmenter, weighting))


def input_files(files: dict[str, Path]) -> tuple[InputFile, ...]:
    """Return the files that were read, as a report lists them."""
    return tuple(InputFile(path.name, file_sha256(path), role) for role, path in files.items())


def use_threads(n_threads: int | None) -> None:
    """Limit torch to `n_threads` CPU threads; None leaves its own choice."""
    if n_threads is not None:
        torch.set_num_threads(n_threads)
