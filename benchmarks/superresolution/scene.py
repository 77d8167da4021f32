"""Simulated scans for the benchmark of super-resolution: cases, what methods are given, and the truth beside it."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from common.brains import FILES, Brain, load_brain, phantom_brain, scan_unlike_the_model, truth_on
from common.results import Cost, measured
from torch import Tensor

from inr.scans.single import OneScan
from inr.scans.stacks import Stacks
from mrcore.data.grid import Grid
from mrcore.data.volume import TissueMap, Volume
from mrcore.metrics.scores import Target, score_target
from mrcore.spatial.cropping import crop_to
from mrkit.simulation.protocol import Changes
from mrkit.simulation.simulate import simulate_ulf
from mrkit.superresolution.prepare import Prepared, prepare
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

    `scans` are as simulated, `prepared` is all that methods see. `labels` are FreeSurfer's of the truth, for the
    brains that have some.
    """

    case: Case
    scans: tuple[Volume, ...]
    prepared: Prepared
    goal: Target
    notes: tuple[str, ...]
    preparation: Cost
    labels: Volume | None = None

    @property
    def first(self) -> Volume:
        """The first scan, relative to WM."""
        return self.prepared.scans[0]

    @property
    def data(self) -> OneScan | Stacks:
        """The scans of the fit."""
        return self.prepared.data

    @property
    def lattice(self) -> Grid:
        """The lattice of the fit."""
        return self.prepared.lattice

    @property
    def output_grid(self) -> Grid:
        """Where results are compared with the truth."""
        return self.prepared.output_grid

    @property
    def start(self) -> Tensor:
        """Images (C, X, Y, Z) that a fit starts from, on the lattice."""
        return self.prepared.start

    @property
    def tissues(self) -> TissueMap:
        """Tissues on the lattice."""
        return self.prepared.tissues

    @property
    def noise_sd(self) -> float:
        """Noise of the first scan per real channel, relative to WM."""
        return self.data.views()[0].noise_sd

    def rendered(self, image: Tensor) -> Volume:
        """Return an image (X, Y, Z) of the lattice on the output grid, in units of the first scan."""
        return crop_to(Volume(image * self.prepared.scales[0], self.lattice), self.output_grid)

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
    scans, truth, remarks = _scanned(brain, case)
    with measured() as cost:
        ready = prepare(scans, voxel_mm=voxel_mm)
    image, tissues, mask = truth_on(truth, brain.tissues, brain.mask, ready.output_grid)
    notes = (*(f"simulation: {note}" for note in remarks), *(f"preparation: {note}" for note in ready.notes))
    return Scene(case, scans, ready, score_target(image, mask, tissues), notes, cost, labels)


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
