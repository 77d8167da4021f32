"""Artefacts of the order in which k-space is read: motion between shots, Nyquist ghost, drift; and wrap."""

from __future__ import annotations

from dataclasses import dataclass

from mrcore.errors import BadInputError
from mrcore.grid import Triple


@dataclass(frozen=True)
class Pose:
    """Rigid displacement of the head, in world axes.

    It turns about R, then A, then S through the centre of the field of view, and is shifted then.

    Raises:
        BadInputError: numbers that are not finite, shifts beyond 200 mm or turns beyond 180 degrees.
    """

    shift_mm: Triple = (0.0, 0.0, 0.0)
    rotation_deg: Triple = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        for name, limit in (("shift_mm", 200), ("rotation_deg", 180)):
            values = getattr(self, name)
            if len(values) != 3 or not all(abs(v) <= limit for v in values):
                raise BadInputError(f"{name} of a pose needs three numbers within {limit} of 0, got {values}")
            object.__setattr__(self, name, tuple(float(v) for v in values))


@dataclass(frozen=True)
class ShotMotion:
    """Rigid motion between the shots that share the phase-encoding lines.

    Attributes:
        poses: one per shot.
        interleaved: shot s holds every n-th line (s, s + n, ...); otherwise a block of neighbouring lines.

    Raises:
        BadInputError: fewer than two poses.
    """

    poses: tuple[Pose, ...]
    interleaved: bool = True

    def __post_init__(self) -> None:
        if len(self.poses) < 2:
            raise BadInputError(f"motion between shots needs at least two poses, got {len(self.poses)}")
        object.__setattr__(self, "poses", tuple(self.poses))


@dataclass(frozen=True)
class NyquistGhost:
    """Difference between odd and even phase-encoding lines.

    Attributes:
        phase_deg: phase of even lines minus that of odd ones, -180 to 180.
        gain_difference: relative gain of even lines minus that of odd ones, -1 to 1.
    """

    phase_deg: float
    gain_difference: float = 0.0

    def __post_init__(self) -> None:
        if not (abs(self.phase_deg) <= 180 and abs(self.gain_difference) <= 1):
            raise BadInputError(f"a ghost needs a phase within 180 degrees and a gain difference within 1, got {self}")


@dataclass(frozen=True)
class IntensityDrift:
    """Slow change of the receive gain during the scan.

    Attributes:
        change: relative gain at the end minus that at the start, -1 to 1; the mean is 1.
        over_slices: slices are read one after another; otherwise phase-encoding lines are.
        n_passes: 1 in order, 2 first the even then the odd ones, and so on.
    """

    change: float
    over_slices: bool = False
    n_passes: int = 1

    def __post_init__(self) -> None:
        if not abs(self.change) <= 1:
            raise BadInputError(f"the relative change of a drift is between -1 and 1, got {self.change}")
        if self.n_passes < 1:
            raise BadInputError(f"n_passes must be at least 1, got {self.n_passes}")


@dataclass(frozen=True)
class Wrap:
    """Field of view smaller than the object along the phase axis: what lies outside folds back.

    Attributes:
        fov_fraction: reduced over full field of view, between 0.1 and 1.
    """

    fov_fraction: float

    def __post_init__(self) -> None:
        if not 0.1 <= self.fov_fraction <= 1:
            raise BadInputError(f"fov_fraction must be between 0.1 and 1, got {self.fov_fraction}")
