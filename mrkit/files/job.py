"""Files and settings that the jobs of several verbs share."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mrcore.io.sidecar import stem
from mrkit.files.outputs import OutputNames


@dataclass(frozen=True)
class Job:
    """Files and settings that several verbs share.

    Attributes:
        image: the scan to work on.
        out: folder of the results.
        mask: brain mask; None to find the brain.
        masker: what finds the brain of a head, `template` or `deepbet`.
        tissues: one label map or three probability maps; empty to segment.
        labels: tissue of each code of a label map (others are background); None for what files state, or FAST's.
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
    labels: Mapping[int, str] | None = None
    segmenter: str = "mrkit"
    weighting: str | None = None
    seed: int = 0
    with_report: bool = True
    force: bool = False

    @property
    def names(self) -> OutputNames:
        """Where the results go and how their names begin."""
        return OutputNames(self.out, stem(self.image))

    @property
    def files(self) -> dict[str, Path]:
        """The files that are read, by role."""
        several = len(self.tissues) > 1
        tissues = {f"tissues {n}" if several else "tissues": path for n, path in enumerate(self.tissues, start=1)}
        return {"image": self.image, **({"mask": self.mask} if self.mask else {}), **tissues}

    @property
    def segmenter_used(self) -> str:
        """What the tissues come from, for sidecars and reports."""
        if not self.tissues:
            return self.segmenter
        codes = ", ".join(f"{code} {name}" for code, name in sorted((self.labels or {}).items()))
        return f"given tissue maps ({codes})" if codes else "given tissue maps"

    @property
    def mask_used(self) -> str:
        """What the brain mask comes from, where the image is not skull-stripped."""
        return "given mask" if self.mask else "given tissue maps" if self.tissues else self.masker


def job_of(arguments: argparse.Namespace) -> Job:
    """Return the job that the shared arguments describe."""
    return Job(
        image=arguments.image,
        out=arguments.out,
        mask=arguments.mask,
        masker=arguments.masker,
        tissues=tuple(arguments.tissues or ()),
        labels=arguments.labels,
        segmenter=arguments.segmenter,
        weighting=arguments.weighting,
        seed=arguments.seed,
        with_report=not arguments.no_report,
        force=arguments.force,
    )
