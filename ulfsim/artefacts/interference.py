"""Artefacts that are added to a scan: zipper lines of radio interference, and spikes in k-space.

Amplitudes are in units of the noise sd per real channel, as interference is measured: the caller multiplies by it.
"""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.data.grid import Shape3, Triple
from mrcore.errors import BadInputError
from mrcore.operators.fourier import FourierOp
from mrcore.random import seeded
from ulfsim.artefacts.encoding import AxisRoles


@dataclass(frozen=True)
class Zipper:
    """Narrow-band radio interference: a bright line across the readout axis for each frequency.

    The line lies frequency / bandwidth per voxel from the middle voxel; a frequency outside the readout's band is
    filtered out.

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


def zipper_k_space(zipper: Zipper, encoding: AxisRoles, shape: Shape3) -> Tensor:
    """Return the k-space (X, Y, Z, complex128) of the tones: exp(-2 pi i q f / (n bandwidth)), q the sample of an echo.

    Each of the other two axes' lines is an echo with a random phase of its own, as interference is not locked to the
    sequence. The energy of each tone is `amplitude`^2 per echo, that of a line of this root mean square in the image.
    """
    axis, n = encoding.readout_axis, shape[encoding.readout_axis]
    echoes = [1 if a == axis else s for a, s in enumerate(shape)]
    sample = (torch.arange(n, dtype=torch.float64) - n // 2).reshape([-1 if a == axis else 1 for a in range(3)])
    generator = seeded(zipper.seed, "ulfsim.artefacts:zipper")
    total = torch.zeros(shape, dtype=torch.complex128)
    for frequency_hz in zipper.frequencies_hz:
        phase = 2 * math.pi * torch.rand(echoes, generator=generator, dtype=torch.float64)
        jitter_hz = zipper.width_hz * torch.randn(echoes, generator=generator, dtype=torch.float64)
        place = (frequency_hz + jitter_hz) / encoding.bandwidth_hz
        passed = ((place >= -(n // 2)) & (place < n - n // 2)).double() * zipper.amplitude / math.sqrt(n)
        total += torch.polar(passed.expand(shape), phase - 2 * math.pi * sample * place / n)
    return total


def spikes_k_space(spikes: Spikes, shape: Shape3) -> Tensor:
    """Return the k-space (X, Y, Z, complex128) of the samples: each makes plane waves of its amplitude in the image."""
    total = torch.zeros(shape, dtype=torch.complex128)
    for spike in spikes.samples:
        i, j, k = (min(n // 2 + round(p * n), n - 1) for p, n in zip(spike.place, shape, strict=True))
        total[i, j, k] += cmath.rect(spike.amplitude * math.sqrt(math.prod(shape)), math.radians(spike.phase_deg))
    return total


def interference_image(
    zipper: Zipper | None, spikes: Spikes | None, encoding: AxisRoles, shape: Shape3
) -> Tensor | None:
    """Return what both add to the image (X, Y, Z, complex128), in noise sd; None where there is neither."""
    parts = [zipper_k_space(zipper, encoding, shape)] if zipper is not None else []
    parts += [spikes_k_space(spikes, shape)] if spikes is not None else []
    if not parts:
        return None
    return FourierOp(shape, torch.complex128).H(torch.stack(parts).sum(0))
