"""Training pairs without end: random low-field scans of given heads, with the objects that they show.

Pair `i` follows from the sources, the ranges, the seed and `i`, whatever was drawn before it: the same bytes for any
number of worker processes and in any order.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mrcore.data.acquisition import to_json as acquisition_to_json
from mrcore.data.grid import Grid, Shape3, cropped
from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.io.tissues import load_tissues
from mrcore.io.volumes import load_volume
from mrcore.random import seeded
from mrcore.scans import as_scan
from mrcore.spatial.resampling import ResampleOp
from ulfsim.artefacts.artefacts import to_json as artefacts_to_json
from ulfsim.calibration.gains import calibrate
from ulfsim.plan import plan_scan
from ulfsim.protocols.ranges import AcquisitionRange, artefacts_of, draw
from ulfsim.simulation import Simulation, simulate
from ulfsim.source.source import Source, source_of
from ulfsim.source.synthetic import suited


class Pair(NamedTuple):
    """One simulated scan and what it shows; torch collates it as it is, if the shapes agree.

    Attributes:
        scan: magnitude scan (1, X, Y, Z), in the intensities of the source.
        truth: the object in the contrast of the scan, without blur and noise (1, X, Y, Z).
        high: the high-field image on the lattice of `truth`, in its own contrast.
        scan_affine: (4, 4) voxel to world in mm, float64, of `scan`.
        truth_affine: that of `truth` and `high`.
        noise_sd: noise of the scan per real channel.
        number: which pair it is.
        settings: JSON of source, acquisition, SNRs (`PredictedSnr` is that without tilt), gains, artefacts and seed.
    """

    scan: Tensor
    truth: Tensor
    high: Tensor
    scan_affine: Tensor
    truth_affine: Tensor
    noise_sd: float
    number: int
    settings: str


@dataclass(frozen=True)
class SourceFiles:
    """A head to be loaded when it is needed: `image`, and one label map or the maps of CSF, GM and WM in `tissues`."""

    image: Path
    tissues: tuple[Path, ...]

    def __call__(self) -> Source:
        """Load the files."""
        return source_of(as_scan(load_volume(self.image))[0], load_tissues(self.tissues))


SourceLike = Source | Callable[[], Source]


class SimulatedPairs(Dataset[Pair]):
    """`n_per_source` pairs of each source; pair `i` is of source `i % len(sources)`.

    A source that is not loaded is given as a function without arguments, such as `SourceFiles`; each process keeps
    the `n_cached` last ones. Scans differ in grid, so for batches give one of

    - `on_truth_grid`: the scan resampled (trilinear, 0 outside) onto the lattice of the truth;
    - `patch`: the same, and from all a block of this shape around a random place among the tissues, padded with 0.

    On the CPU pairs are made by one thread, so that bytes do not depend on the number of threads: use workers.
    `device` takes the sources and does the work; with workers leave it on the CPU.

    Raises:
        BadInputError: no sources, or a number or a patch below 1.
    """

    def __init__(
        self,
        sources: Sequence[SourceLike],
        ranges: AcquisitionRange,
        seed: int,
        *,
        n_per_source: int = 1,
        on_truth_grid: bool = False,
        patch: Shape3 | None = None,
        device: torch.device | str = "cpu",
        n_cached: int = 4,
    ) -> None:
        if not sources:
            raise BadInputError("no sources to simulate from; give at least one")
        if min(n_per_source, n_cached) < 1 or (patch is not None and (len(patch) != 3 or min(patch) < 1)):
            raise BadInputError(
                f"n_per_source, n_cached and three sizes of a patch must be at least 1, got {n_per_source}, {n_cached} "
                f"and {patch}"
            )
        self.sources, self.ranges, self.seed = tuple(sources), ranges, seed
        self.n_per_source, self.n_cached = n_per_source, n_cached
        self.on_truth_grid, self.patch, self.device = on_truth_grid or patch is not None, patch, torch.device(device)
        self._loaded: OrderedDict[int, Source] = OrderedDict()

    def __len__(self) -> int:
        return self.n_per_source * len(self.sources)

    def __getitem__(self, index: int) -> Pair:
        """Return pair `index`, from 0."""
        if not 0 <= index < len(self):
            raise IndexError(f"pairs are numbered 0 to {len(self) - 1}, got {index}")
        return self.pair(index)

    def __getstate__(self) -> dict[str, Any]:
        # What was loaded stays where it is: a worker loads its own.
        return {**self.__dict__, "_loaded": OrderedDict()}

    def pair(self, number: int) -> Pair:
        """Return pair `number`, which may lie beyond the end."""
        which = number % len(self.sources)
        with _one_thread(self.device):
            source = self._source(which)
            simulation, facts = _simulation(source, self.ranges, self.seed, number)
            settings = json.dumps({"Source": which, **facts}, sort_keys=True)
            return self._framed(simulation, source, number, settings)

    def _source(self, which: int) -> Source:
        if which not in self._loaded:
            given = self.sources[which]
            self._loaded[which] = _moved(given if isinstance(given, Source) else given(), self.device)
        self._loaded.move_to_end(which)
        while len(self._loaded) > self.n_cached:
            self._loaded.popitem(last=False)
        return self._loaded[which]

    def _framed(self, simulation: Simulation, source: Source, number: int, settings: str) -> Pair:
        """Return scan and truth on the lattices that were asked for."""
        scan, truth, high = simulation.scan, simulation.truth, source.volume
        if self.patch is not None:
            start = _patch_start(source, self.patch, seeded(self.seed, f"ulfsim.dataset:{number}:patch"))
            truth, high = (_block(volume, start, self.patch) for volume in (truth, high))
        if self.on_truth_grid:
            scan = _resampled(scan, truth.grid)
        return Pair(
            scan.data[None],
            truth.data[None],
            high.data[None],
            torch.tensor(scan.grid.affine),
            torch.tensor(truth.grid.affine),
            simulation.acquisition.noise_sd,
            number,
            settings,
        )


def _simulation(
    source: Source, ranges: AcquisitionRange, seed: int, number: int
) -> tuple[Simulation, Mapping[str, object]]:
    """Draw, calibrate and simulate one scan; return it and its facts as JSON values.

    Gains come from the same scan without its tilt: a Kronecker product, much faster, with nearly the same regions.
    """
    drawn = draw(ranges, seed, f"pair {number}")
    source, notes = suited(source, drawn.snr)
    data = source.volume.data
    straight = plan_scan(source.volume.grid, replace(drawn.acquisition, tilt_deg=(0.0, 0.0, 0.0)), data.dtype)
    straight = replace(straight, operator=straight.operator.to(data.device))
    calibration = calibrate(source, straight, drawn.snr)
    acquisition = replace(drawn.acquisition, noise_sd=calibration.noise_sd)
    scan_grid = plan_scan(source.volume.grid, acquisition, data.dtype).scan_grid
    artefacts = artefacts_of(drawn, scan_grid)
    noise_seed = int(torch.randint(2**31, (), generator=seeded(seed, f"ulfsim.dataset:{number}:noise")))
    done = simulate(source, acquisition, calibration.gains, noise_seed, calibration.background_gain, artefacts)
    facts = {
        **acquisition_to_json(acquisition),
        "Protocol": drawn.protocol,
        "TargetSnr": dict(drawn.snr),
        "PredictedSnr": dict(calibration.predicted),
        "Gains": dict(calibration.gains),
        "Warnings": [*notes, *calibration.warnings],
        "Artefacts": artefacts_to_json(artefacts),
        "Seed": noise_seed,
    }
    return done, facts


def _patch_start(source: Source, patch: Shape3, generator: torch.Generator) -> Shape3:
    """Return the first voxel of a block inside the window of the tissues, centred on it where it is larger."""
    start = []
    for window, size in zip(source.window, patch, strict=True):
        free = window.stop - window.start - size
        offset = int(torch.randint(max(free, 0) + 1, (), generator=generator)) if free > 0 else free // 2
        start.append(window.start + offset)
    return start[0], start[1], start[2]


def _block(volume: Volume, start: Shape3, shape: Shape3) -> Volume:
    # Negative widths crop.
    widths = [(-s, s + n - m) for s, n, m in zip(start, shape, volume.grid.shape, strict=True)]
    flat = [width for pair in reversed(widths) for width in pair]
    return Volume(torch.nn.functional.pad(volume.data, flat), cropped(volume.grid, start, shape), volume.meta)


def _resampled(scan: Volume, grid: Grid) -> Volume:
    operator = ResampleOp(scan.grid, grid, dtype=scan.data.dtype, device=scan.data.device)
    return Volume(operator(scan.data), grid, scan.meta)


def _moved(source: Source, device: torch.device) -> Source:
    volume = Volume(source.volume.data.to(device), source.volume.grid, source.volume.meta)
    tissues = TissueMap(source.tissues.prob.to(device), source.tissues.names, source.tissues.grid)
    return replace(source, volume=volume, tissues=tissues, basis=source.basis.to(device), rest=source.rest.to(device))


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Run torch on one CPU thread, as data workers do; sums over several come out in another order."""
    n_threads = torch.get_num_threads()
    if device.type != "cpu" or n_threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
