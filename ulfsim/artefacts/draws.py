"""Draw artefacts at random: which ones, and how strong, from stated ranges."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch

from mrcore.data.grid import Grid, Triple
from mrcore.errors import BadInputError
from mrcore.random import seeded
from ulfsim.artefacts.artefacts import Artefacts
from ulfsim.artefacts.encoding import AxisRoles
from ulfsim.artefacts.fields import B0Distortion, ConcomitantWarp, ReceiveBias, peak_to_peak_ppm
from ulfsim.artefacts.interference import Spike, Spikes, Zipper
from ulfsim.artefacts.kspace import IntensityDrift, NyquistGhost, ShotMotion, ShotPose, Wrap, lines_of_shot

_WIDEST_HZ = 100.0  # of interference from one echo to the next; assumed


@dataclass(frozen=True)
class Chance:
    """An artefact that occurs with `probability`; its strength is uniform between `low` and `high`.

    Raises:
        BadInputError: a probability outside [0, 1], or a range that is not ordered and finite.
    """

    probability: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise BadInputError(f"a probability is between 0 and 1, got {self.probability}")
        if not -math.inf < self.low <= self.high < math.inf:
            raise BadInputError(f"a range needs finite numbers, low to high, got {self.low} to {self.high}")


@dataclass(frozen=True)
class ArtefactRange:
    """How often each artefact occurs and how strong it is.

    Attributes:
        bandwidth_hz: readout bandwidth per voxel, low and high.
        bias_ratio: brightest over darkest receive sensitivity within 100 mm.
        b0_ppm: peak-to-peak off-resonance within 100 mm.
        concomitant: probability; its strength follows from field and bandwidth.
        motion_mm: sd of the shifts, along each world axis.
        motion_deg_per_mm: sd of the turns about each world axis, per mm of that of the shifts.
        n_shots: shots of a moving head, low and high.
        ghost_deg: phase between even and odd lines.
        ghost_gain: largest gain difference between them.
        drift: size of the relative change over the scan, up or down.
        fov_fraction: reduced over full field of view.
        zipper_sd: root mean square of a line, in noise sd.
        n_zippers: frequencies of interference, at most.
        spike_sd: amplitude of each spike's stripes, in noise sd.
        n_spikes: spikes, at most.
    """

    bandwidth_hz: tuple[float, float]
    bias_ratio: Chance
    b0_ppm: Chance
    concomitant: float
    motion_mm: Chance
    motion_deg_per_mm: float
    n_shots: tuple[int, int]
    ghost_deg: Chance
    ghost_gain: float
    drift: Chance
    fov_fraction: Chance
    zipper_sd: Chance
    n_zippers: int
    spike_sd: Chance
    n_spikes: int

    def __post_init__(self) -> None:
        if not 0 < self.bandwidth_hz[0] <= self.bandwidth_hz[1] or not 2 <= self.n_shots[0] <= self.n_shots[1]:
            raise BadInputError(f"bandwidths are positive, shots at least 2, both low to high, got {self}")
        if not 0 <= self.concomitant <= 1 or min(self.n_zippers, self.n_spikes) < 1:
            raise BadInputError(f"a probability is between 0 and 1 and numbers of lines at least 1, got {self}")


MILD = ArtefactRange(
    bandwidth_hz=(200.0, 500.0),
    bias_ratio=Chance(0.8, 1.1, 1.5),
    b0_ppm=Chance(0.8, 20.0, 200.0),
    concomitant=1.0,
    motion_mm=Chance(0.3, 0.1, 0.8),
    motion_deg_per_mm=0.8,
    n_shots=(2, 6),
    ghost_deg=Chance(0.2, 2.0, 8.0),
    ghost_gain=0.02,
    drift=Chance(0.3, 0.01, 0.05),
    fov_fraction=Chance(0.05, 0.85, 0.98),
    zipper_sd=Chance(0.2, 1.0, 4.0),
    n_zippers=2,
    spike_sd=Chance(0.05, 0.3, 1.0),
    n_spikes=1,
)
"""What a scan that a reader accepts may have.

Off-resonance: hundreds to thousands of ppm in permanent magnets (Koolstra et al., MAGMA 2021;34:631), of which shims
and a corrected reconstruction leave a part. Concomitant fields are always there. All else is assumed, not measured.
"""

STRONG = ArtefactRange(
    bandwidth_hz=(200.0, 500.0),
    bias_ratio=Chance(0.9, 1.5, 3.0),
    b0_ppm=Chance(0.9, 200.0, 600.0),
    concomitant=1.0,
    motion_mm=Chance(0.6, 0.8, 3.0),
    motion_deg_per_mm=0.8,
    n_shots=(2, 8),
    ghost_deg=Chance(0.4, 8.0, 25.0),
    ghost_gain=0.1,
    drift=Chance(0.5, 0.05, 0.2),
    fov_fraction=Chance(0.15, 0.6, 0.95),
    zipper_sd=Chance(0.5, 4.0, 15.0),
    n_zippers=4,
    spike_sd=Chance(0.2, 1.0, 4.0),
    n_spikes=3,
)
"""What a reader would reject: uncorrected fields, an unshielded room, a restless head. For training and stress tests.

Off-resonance within the hundreds of ppm of Koolstra et al. (MAGMA 2021;34:631); all else is assumed, not measured.
"""


def draw_artefacts(ranges: ArtefactRange, scan_grid: Grid, seed: int, key: str) -> Artefacts:
    """Return artefacts for a scan on `scan_grid`; the same arguments give the same ones in every process.

    Each artefact has a stream of random numbers of its own, so that changing the range of one leaves the others.
    Frequencies of interference lie anywhere in the band, spikes anywhere in k-space. The last axis is that of slices;
    readout and phase take the other two in either order. The shot that reads the centre of k-space is at rest, so that
    the scan lies where the object is.
    """

    def stream(name: str) -> torch.Generator:
        return seeded(seed, f"{key}:{name}")

    g = stream("encoding")
    readout = _integer(0, 1, g)
    encoding = AxisRoles(readout, 1 - readout, _uniform(*ranges.bandwidth_hz, g))
    bandwidth_hz = encoding.bandwidth_hz * scan_grid.shape[readout]
    return Artefacts(
        bias=_bias(ranges, stream("bias")),
        b0=_b0(ranges, stream("b0")),
        concomitant=ConcomitantWarp() if _uniform(0, 1, stream("concomitant")) < ranges.concomitant else None,
        motion=_motion(ranges, scan_grid.shape[encoding.phase_axis], stream("motion")),
        ghost=_ghost(ranges, stream("ghost")),
        drift=_drift(ranges, stream("drift")),
        wrap=_wrap(ranges, stream("wrap")),
        zipper=_zipper(ranges, bandwidth_hz, stream("zipper")),
        spikes=_spikes(ranges, stream("spikes")),
        encoding=encoding,
    )


def _bias(ranges: ArtefactRange, g: torch.Generator) -> ReceiveBias | None:
    ratio = _strength(ranges.bias_ratio, g)
    return None if ratio is None else ReceiveBias(ratio, _normal(9, g))


def _b0(ranges: ArtefactRange, g: torch.Generator) -> B0Distortion | None:
    ppm = _strength(ranges.b0_ppm, g)
    if ppm is None:
        return None
    shape = _normal(8, g)
    factor = ppm / peak_to_peak_ppm(B0Distortion(shape))
    return B0Distortion(tuple(factor * c for c in shape))


def _motion(ranges: ArtefactRange, n_lines: int, g: torch.Generator) -> ShotMotion | None:
    sd_mm = _strength(ranges.motion_mm, g)
    if sd_mm is None:
        return None
    interleaved = _integer(0, 1, g) == 0
    poses = []
    for _ in range(_integer(*ranges.n_shots, g)):
        shift_mm = tuple(sd_mm * v for v in _normal(3, g))
        turn_deg = tuple(sd_mm * ranges.motion_deg_per_mm * v for v in _normal(3, g))
        poses.append(ShotPose(cast("Triple", shift_mm), cast("Triple", turn_deg)))
    drawn = ShotMotion(tuple(poses), interleaved)
    centre = [bool(lines_of_shot(drawn, s, n_lines)[n_lines // 2]) for s in range(len(poses))].index(True)
    poses[centre] = ShotPose()
    return ShotMotion(tuple(poses), interleaved)


def _ghost(ranges: ArtefactRange, g: torch.Generator) -> NyquistGhost | None:
    phase_deg = _strength(ranges.ghost_deg, g)
    return None if phase_deg is None else NyquistGhost(phase_deg, _uniform(-ranges.ghost_gain, ranges.ghost_gain, g))


def _drift(ranges: ArtefactRange, g: torch.Generator) -> IntensityDrift | None:
    change = _strength(ranges.drift, g)
    if change is None:
        return None
    sign = 1 - 2 * _integer(0, 1, g)
    return IntensityDrift(sign * change, over_slices=_integer(0, 1, g) == 1, n_passes=_integer(1, 2, g))


def _wrap(ranges: ArtefactRange, g: torch.Generator) -> Wrap | None:
    fraction = _strength(ranges.fov_fraction, g)
    return None if fraction is None else Wrap(fraction)


def _zipper(ranges: ArtefactRange, bandwidth_hz: float, g: torch.Generator) -> Zipper | None:
    amplitude = _strength(ranges.zipper_sd, g)
    if amplitude is None:
        return None
    n = _integer(1, ranges.n_zippers, g)
    frequencies_hz = tuple(_uniform(-bandwidth_hz / 2, bandwidth_hz / 2, g) for _ in range(n))
    return Zipper(frequencies_hz, amplitude, width_hz=_uniform(0, _WIDEST_HZ, g), seed=_integer(0, 2**31 - 1, g))


def _spikes(ranges: ArtefactRange, g: torch.Generator) -> Spikes | None:
    amplitude = _strength(ranges.spike_sd, g)
    if amplitude is None:
        return None
    samples = []
    for _ in range(_integer(1, ranges.n_spikes, g)):
        place = cast("Triple", tuple(_uniform(-0.5, 0.5, g) for _ in range(3)))
        samples.append(Spike(place, amplitude, _uniform(-180, 180, g)))
    return Spikes(tuple(samples))


def _strength(chance: Chance, g: torch.Generator) -> float | None:
    """Return a strength, or None where the artefact does not occur."""
    occurs, place = torch.rand(2, generator=g, dtype=torch.float64).tolist()
    return chance.low + (chance.high - chance.low) * place if occurs < chance.probability else None


def _uniform(low: float, high: float, g: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=g, dtype=torch.float64))


def _integer(low: int, high: int, g: torch.Generator) -> int:
    """Return one of low, ..., high."""
    return int(torch.randint(low, high + 1, (), generator=g))


def _normal(n: int, g: torch.Generator) -> tuple[float, ...]:
    return tuple(torch.randn(n, generator=g, dtype=torch.float64).tolist())
