"""The phase graph of `mrcore.signals.epg` as a chain of plain operations, and with its derivatives carried along."""

from __future__ import annotations

import torch
from torch import Tensor

from mrcore.signals.mrf_sequence import MrfSequence

States = tuple[Tensor, Tensor, Tensor]  # p, m and Z, each (orders, ...)


def plain_signals(sequence: MrfSequence, t1_s: Tensor, t2_s: Tensor, flips_rad: Tensor, n_orders: int) -> Tensor:
    """Return the real signals (atoms, frames) of a FISP train; see `mrcore.signals.epg` for the recursion.

    `t1_s`, `t2_s`: (atoms,); `flips_rad`: (frames, atoms); orders from `n_orders` on are dropped. Differentiable; the
    backward pass keeps all states of all frames.
    """
    along = sequence.prepared(t1_s)[None]
    states = (torch.zeros_like(along), torch.zeros_like(along), along)
    echoes = []
    for frame, (tr_s, te_s) in enumerate(zip(sequence.tr_s.tolist(), sequence.te_s.tolist(), strict=True)):
        plus, minus, along = _pulse(states, flips_rad[frame])
        echoes.append(plus[0] * torch.exp(-te_s / t2_s))
        decay_1, decay_2 = torch.exp(-tr_s / t1_s), torch.exp(-tr_s / t2_s)
        along = along * decay_1
        along = torch.cat([along[:1] + 1 - decay_1, along[1:]])
        states = _shift((plus * decay_2, minus * decay_2, along), _n_kept(frame, sequence.n_frames, n_orders))
    return torch.stack(echoes, -1)


def plain_derivatives(
    sequence: MrfSequence, t1_s: Tensor, t2_s: Tensor, flips_rad: Tensor, n_orders: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the signals and their derivatives with respect to T1 and T2 (1/s), each (atoms, frames).

    The states are (orders, 3, atoms): value and both derivatives, which pulses and shifts treat alike.
    """
    value = sequence.prepared(t1_s)
    recovered = 0.0 if sequence.ti_s is None else sequence.ti_s
    along = torch.stack([value, (value - 1) * recovered / t1_s**2, torch.zeros_like(value)])[None]
    states = (torch.zeros_like(along), torch.zeros_like(along), along)
    echoes = []
    for frame, (tr_s, te_s) in enumerate(zip(sequence.tr_s.tolist(), sequence.te_s.tolist(), strict=True)):
        plus, minus, along = _pulse(states, flips_rad[frame])
        echo = plus[0] * torch.exp(-te_s / t2_s)
        echo[2] += echo[0] * te_s / t2_s**2
        echoes.append(echo)
        along[0, 0] -= 1  # what is left to recover decays like every other order
        along = along * torch.exp(-tr_s / t1_s)
        along[:, 1] += along[:, 0] * (tr_s / t1_s**2)
        along[0, 0] += 1
        plus, minus = (part * torch.exp(-tr_s / t2_s) for part in (plus, minus))
        for part in (plus, minus):
            part[:, 2] += part[:, 0] * (tr_s / t2_s**2)
        states = _shift((plus, minus, along), _n_kept(frame, sequence.n_frames, n_orders))
    signals, by_t1, by_t2 = torch.stack(echoes, -1)
    return signals, by_t1, by_t2


def _pulse(states: States, flip_rad: Tensor) -> States:
    plus, minus, along = states
    half = (plus - minus) / 2
    sine, cosine = torch.sin(flip_rad), torch.cos(flip_rad)
    change = cosine * half - sine * along - half
    return plus + change, minus - change, sine * half + cosine * along


def _shift(states: States, n_kept: int) -> States:
    plus, minus, along = states
    empty = torch.zeros_like(along[:1])
    minus = torch.cat([minus[1:], empty, empty])
    plus = torch.cat([-minus[:1], plus])
    along = torch.cat([along, empty])
    return plus[:n_kept], minus[:n_kept], along[:n_kept]


def _n_kept(frame: int, n_frames: int, n_orders: int) -> int:
    """Return the number of orders at the next pulse: those reached, wanted, and able to reach the last echo."""
    return min(frame + 2, max(1, n_frames - 1 - frame), n_orders)
