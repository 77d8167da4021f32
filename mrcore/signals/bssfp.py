"""Balanced SSFP fingerprints: every gradient is rewound, so that one isochromat an off-resonance is the whole state."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mrcore.errors import BadInputError
from mrcore.signals.mrf_sequence import MrfSequence


def bssfp_signals(
    sequence: MrfSequence, t1_s: Tensor, t2_s: Tensor, off_resonance_hz: Tensor | None = None, b1: Tensor | None = None
) -> Tensor:
    """Return the complex signals (atoms, frames) of a balanced train per unit of PD.

    `t1_s`, `t2_s`, `off_resonance_hz` (0 by default) and `b1` (factor on the flip angles): (atoms,). The RF phase is
    that of the sequence or, where it has none, alternates between 0 and 180 degrees; the receiver follows it. In the
    frame of the receiver M = x + i y, a pulse of flip a does y' = y cos a - z sin a, z' = y sin a + z cos a, as in
    `mrcore.signals.epg`, and off resonance by f turns M by exp(2 pi i f t). Differentiable.

    Raises:
        BadInputError: times that are not positive, unequal lengths.
    """
    shift_hz = torch.zeros_like(t1_s) if off_resonance_hz is None else off_resonance_hz
    scale = torch.ones_like(t1_s) if b1 is None else b1
    for name, values in (("t1_s", t1_s), ("t2_s", t2_s), ("off_resonance_hz", shift_hz), ("b1", scale)):
        if values.ndim != 1 or values.shape != t1_s.shape:
            raise BadInputError(f"{name} must have one number an atom, got the shape {tuple(values.shape)}")
    if not bool((t1_s > 0).all()) or not bool((t2_s > 0).all()):
        raise BadInputError("t1_s and t2_s must be above 0")
    phases = _phases_rad(sequence)
    steps = [following - here for here, following in zip(phases, [*phases[1:], phases[-1]], strict=True)]
    tr_s, te_s, flips = sequence.tr_s.tolist(), sequence.te_s.tolist(), torch.deg2rad(sequence.flip_deg).tolist()
    transverse = torch.zeros_like(t1_s).to(t1_s.dtype.to_complex())
    along = sequence.prepared(t1_s)
    rate = torch.complex(-1 / t2_s, 2 * math.pi * shift_hz)
    echoes = []
    for flip, repetition_s, echo_s, step in zip(flips, tr_s, te_s, steps, strict=True):
        sine, cosine = torch.sin(flip * scale), torch.cos(flip * scale)
        turned = torch.complex(transverse.real, cosine * transverse.imag - sine * along)
        along = sine * transverse.imag + cosine * along
        echoes.append(turned * torch.exp(rate * echo_s))
        transverse = turned * torch.exp(rate * repetition_s - 1j * step)
        along = 1 + (along - 1) * torch.exp(-repetition_s / t1_s)
    return torch.stack(echoes, -1)


def _phases_rad(sequence: MrfSequence) -> list[float]:
    if sequence.phase_deg is None:
        return [math.pi * (frame % 2) for frame in range(sequence.n_frames)]
    return torch.deg2rad(sequence.phase_deg).tolist()
