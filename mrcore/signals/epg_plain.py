"""The phase graph of `mrcore.signals.epg` as a chain of plain operations, which autograd can follow."""

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
