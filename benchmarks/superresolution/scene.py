"""Simulated scans for the benchmark of super-resolution: cases, what methods are given, and the truth beside it."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from common.brains import FILES, Brain, load_brain, phantom_brain, scan_unlike_the_model, truth_on
from common.results import Cost, measured
from mrkit.superresolution.stacks import PreparedStacks, prepare_stacks
from torch import Tensor

from inr.fitting.tissues import Resegment
from inr.scans.single import Data, OneScan
from inr.scans.stacks import Stacks
from mrcore.data.grid import Grid
from mrcore.data.volume import TissueMap, Volume
from mrcore.metrics.scores import Target, score_target
from mrcore.spatial.cropping import crop_to
from mrkit.simulation.protocol import Changes
from mrkit.simulation.simulate import simulate_ulf
from mrkit.superresolution.prepare import PreparedScan, prepare
from ulfsim.protocols.presets import PRESETS

PRESET = "hyperfine-t1w"
NOMINAL, PERTURBED, THREE = "nominal", "perturbed", "three stacks"
ORIENTATIONS = ("S", "A", "R")
GREY_FACTOR = 1.06
"""In perturbed scans GM is that much brighter than the protocol says, a third of its distance to WM less."""


@dataclass(frozen=True)
class Case:
    """One person to be scanned and super-resolved."""

    brain: str
    wm_snr: float
    seed: int
    scan: str

    def labels(self) -> dict[str, object]:
        """Return what tells the case in a row."""
        return {"brain": self.brain, "WM SNR": self.wm_snr, "seed": self.seed, "scan": self.scan}

    @property
    def stem(self) -> str:
        """A file's name without ending."""
        return f"{self.brain}_snr{self.wm_snr:g}_seed{self.seed}_{self.scan.replace(' ', '_')}"


@dataclass(frozen=True, eq=False)
class Scene:
    """What every method of a case is given, and the truth on the output grid.

    `scans` are as simulated; `first` is the first of them relative to `scale`, as all that methods see. `data`,
    `start` (1, X, Y, Z), `foreground` and `tissues` lie on the lattice and are those of all scans. `labels` are
    FreeSurfer's of the truth, for the brains that have some.
    """

    case: Case
    scans: tuple[Volume, ...]
    prepared: PreparedScan | PreparedStacks
    first: Volume
    scale: float
    data: Data
    lattice: Grid
    output_grid: Grid
    start: Tensor
    foreground: Tensor
    tissues: TissueMap
    resegment: Resegment | None
    goal: Target
    notes: tuple[str, ...]
    preparation: Cost
    labels: Volume | None = None

    @property
    def noise_sd(self) -> float:
        """Noise of the first scan per real channel, relative to `scale`."""
        data = self.data
        return data.stacks[0].noise_sd if isinstance(data, Stacks) else cast("OneScan", data).noise_sd

    def rendered(self, image: Tensor) -> Volume:
        """Return an image (X, Y, Z) of the lattice on the output grid, in units of the first scan."""
        return crop_to(Volume(image * self.scale, self.lattice), self.output_grid)

    def rendered_tissues(self, prob: Tensor) -> TissueMap:
        """Return tissue maps (T, X, Y, Z) of the lattice on the output grid."""
        maps = [crop_to(Volume(p, self.lattice), self.output_grid).data for p in prob]
        return TissueMap(torch.stack(maps), self.tissues.names, self.output_grid)

    @property
    def extent(self) -> Tensor:
        """The brain that was found (bool), on the output grid: where images are segmented."""
        return crop_to(Volume(self.tissues.mask.float(), self.lattice), self.output_grid).data > 0.5


def source_of(name: str, options: argparse.Namespace) -> str:
    """Return a digest of a brain's file; a file that is missing is reported, with what to do, where it is loaded."""
    path = options.data / FILES.get(name, name)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else name


def load(name: str, data: Path, voxel_mm: float) -> Brain:
    """Return the brain of that name, cut out for the scans of this benchmark; `phantom` is a small digital head."""
    acquisition = PRESETS[PRESET].acquisition
    if name == "phantom":
        return phantom_brain(acquisition, voxel_mm)
    return load_brain(data / FILES[name], acquisition, voxel_mm)


def scene_of(brain: Brain, case: Case, voxel_mm: float, labels: Volume | None = None) -> Scene:
    """Scan a brain as the case says and do all that precedes a method."""
    scans, truth, said = _scanned(brain, case)
    with measured() as cost:
        ready = prepare(scans[0], voxel_mm=voxel_mm) if len(scans) == 1 else prepare_stacks(scans, voxel_mm=voxel_mm)
    image, tissues, mask = truth_on(truth, brain.tissues, brain.mask, ready.output_grid)
    data, start, first, scale = _given(ready)
    return Scene(
        case,
        scans,
        ready,
        first,
        scale,
        data,
        ready.lattice,
        ready.output_grid,
        start,
        ready.foreground,
        ready.tissues,
        ready.resegment,
        score_target(image, mask, tissues),
        (*(f"simulation: {note}" for note in said), *(f"preparation: {note}" for note in ready.notes)),
        cost,
        labels,
    )


def _given(ready: PreparedScan | PreparedStacks) -> tuple[Data, Tensor, Volume, float]:
    """Return data, start (1, X, Y, Z), first scan and its scale."""
    if isinstance(ready, PreparedStacks):
        return ready.stacks, ready.start, ready.stacks.stacks[0].scan, ready.scales[0]
    return OneScan(ready.scan.data, ready.operator, ready.noise_sd), ready.start[None], ready.scan, ready.scale


def _scanned(brain: Brain, case: Case) -> tuple[tuple[Volume, ...], Volume, Sequence[str]]:
    """Return the scans of a case, the truth in their contrast, and what the simulation remarked."""
    grey = GREY_FACTOR * PRESETS[PRESET].snr["GM"] if case.scan == PERTURBED else PRESETS[PRESET].snr["GM"]
    made = [
        simulate_ulf(
            brain.volume,
            preset=PRESET,
            changes=Changes(slice_axis=axis, snr={"GM": grey}),
            tissues=brain.tissues,
            wm_snr=case.wm_snr,
            seed=case.seed + 1000 * number,
        )
        for number, axis in enumerate(ORIENTATIONS if case.scan == THREE else ORIENTATIONS[:1])
    ]
    scans = [each.scan for each in made]
    if case.scan == PERTURBED:
        scans = [scan_unlike_the_model(made[0].truth, scans[0].grid, made[0].acquisition, case.seed)]
    stripped = tuple(Volume(scan.data, scan.grid, {**scan.meta, "SkullStripped": True}) for scan in scans)
    return stripped, made[0].truth, [note for note in made[0].notes if not note.startswith("protocol:")]
