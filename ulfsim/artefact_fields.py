"""Artefacts of static fields: receive bias, off-resonance and the concomitant field of the readout gradient.

Positions are in world mm (right, anterior, superior) from the centre of the scan's field of view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mrcore.errors import BadInputError
from mrcore.grid import Triple

GAMMA_HZ_PER_T = 42.577478518e6
"""Gyromagnetic ratio of the proton over 2 pi (CODATA 2018)."""
RADIUS_MM = 100.0
"""Radius of the sphere that field strengths are stated for: it holds an adult head."""


@dataclass(frozen=True)
class ReceiveBias:
    """Smooth receive sensitivity: a positive factor on the object.

    The factor is exp(ln(ratio) p / range(p)), p = sum_i c_i u_i + sum_ij c_ij u_i u_j with u = position / 100 mm less
    its mean, so `ratio` is brightest over darkest place within 100 mm. The logarithm of a coil's sensitivity is smooth
    over a head (Sled et al., IEEE TMI 1998;17:87).

    Attributes:
        ratio: brightest over darkest, at least 1.
        coefficients: of R, A, S, RA, AS, SR, RR, AA, SS; only their proportions count.
    """

    ratio: float
    coefficients: tuple[float, ...] = (0, 0, 0, 0, 0, 0, -1, -1, -1)

    def __post_init__(self) -> None:
        if not 1 <= self.ratio <= 100:
            raise BadInputError(f"the ratio of a receive bias is brightest over darkest, 1 to 100, got {self.ratio}")
        object.__setattr__(self, "coefficients", _numbers(self.coefficients, 9, "a receive bias"))
        if not any(self.coefficients):
            raise BadInputError("a receive bias needs a coefficient that is not 0; use None for no bias")


@dataclass(frozen=True)
class B0Distortion:
    """Off-resonance: solid harmonics of first and second order, each in ppm of the main field at 100 mm.

    Attributes:
        coefficients_ppm: of R, A, S, RA, AS, SR, SS - (RR + AA) / 2, RR - AA; a field without sources inside is a sum
            of such harmonics (Romeo & Hoult, MRM 1984;1:44).
    """

    coefficients_ppm: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "coefficients_ppm", _numbers(self.coefficients_ppm, 8, "a B0 distortion"))


@dataclass(frozen=True)
class ConcomitantWarp:
    """Concomitant (Maxwell) field of the readout gradient.

    Attributes:
        field_axis: world axis (R, A or S) of the main field: A in a magnet with poles above and below the head.
        isocentre_mm: world offset of the magnet's isocentre from the centre of the field of view.
    """

    field_axis: str = "A"
    isocentre_mm: Triple = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if self.field_axis not in ("R", "A", "S"):
            raise BadInputError(f"field_axis must be R, A or S, got '{self.field_axis}'")
        object.__setattr__(self, "isocentre_mm", _numbers(self.isocentre_mm, 3, "an isocentre"))


def _numbers(values: tuple[float, ...], n: int, what: str) -> tuple[float, ...]:
    """Return plain floats, so that what JSON gives back is equal."""
    if len(values) != n or not all(math.isfinite(v) for v in values):
        raise BadInputError(f"{what} needs {n} finite numbers, got {values}")
    return tuple(float(v) for v in values)
