"""Artefacts that are added to a scan: zipper lines of radio interference, and spikes in k-space.

Amplitudes are in units of the noise sd per real channel, as interference is measured: the caller multiplies by it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mrcore.errors import BadInputError
from mrcore.grid import Triple


@dataclass(frozen=True)
class Zipper:
    """Narrow-band radio interference: a bright line across the readout axis for each frequency.

    Attributes:
        frequencies_hz: offsets from the centre frequency.
        amplitude: root mean square on the line, in noise sd per real channel.
        width_hz: sd of the frequency from one echo to the next.
        seed: of the phases, which differ from echo to echo.
    """

    frequencies_hz: tuple[float, ...]
    amplitude: float
    width_hz: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.frequencies_hz or not all(math.isfinite(f) for f in self.frequencies_hz):
            raise BadInputError(f"a zipper needs at least one finite frequency in Hz, got {self.frequencies_hz}")
        if not (0 <= self.amplitude < math.inf and 0 <= self.width_hz < math.inf):
            raise BadInputError(f"amplitude and width of a zipper must be finite and not negative, got {self}")
        object.__setattr__(self, "frequencies_hz", tuple(float(f) for f in self.frequencies_hz))


@dataclass(frozen=True)
class Spike:
    """One wrong sample of k-space.

    Attributes:
        place: position as a fraction of the sampled band, each between -0.5 and 0.5; 0 is the centre of k-space.
        amplitude: of the stripes in the image, in noise sd per real channel.
        phase_deg: of the sample.
    """

    place: Triple
    amplitude: float
    phase_deg: float = 0.0

    def __post_init__(self) -> None:
        if len(self.place) != 3 or not all(-0.5 <= p <= 0.5 for p in self.place):
            raise BadInputError(f"a spike needs three places between -0.5 and 0.5 of the band, got {self.place}")
        if not (0 <= self.amplitude < math.inf and math.isfinite(self.phase_deg)):
            raise BadInputError(f"a spike needs a finite amplitude, not negative, and a finite phase, got {self}")
        object.__setattr__(self, "place", tuple(float(p) for p in self.place))


@dataclass(frozen=True)
class Spikes:
    """Wrong samples of k-space, each a pattern of stripes over the whole image."""

    samples: tuple[Spike, ...]

    def __post_init__(self) -> None:
        if not self.samples:
            raise BadInputError("spikes need at least one sample; use None for no spikes")
        object.__setattr__(self, "samples", tuple(self.samples))
