"""Closed forms of the steady-state signal: times in s, angles in degrees, result in units of `pd`.

Perfect pulses and spoiling, monoexponential decay. Tissue values may be floats or tensors that broadcast.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.data.acquisition import PulseSequence
from mrcore.errors import BadInputError
from mrcore.signals.tissue import TISSUE_TABLE, Relaxation, Tissue, relaxation

Values = Tensor | float


def spoiled_gre(pd: Values, t1_s: Values, t2_star_s: Values, tr_s: float, te_s: float, flip_deg: float) -> Tensor:
    """Return the spoiled gradient echo: pd sin(a) (1 - E1) / (1 - cos(a) E1) exp(-TE / T2*), E1 = exp(-TR / T1).

    Ernst & Anderson, Rev Sci Instrum 1966;37:93.
    """
    pd, t1, t2 = _tensors(pd, t1_s, t2_star_s)
    angle = math.radians(flip_deg)
    e1 = torch.exp(-tr_s / t1)
    return pd * math.sin(angle) * (1 - e1) / (1 - math.cos(angle) * e1) * torch.exp(-te_s / t2)


def spin_echo(pd: Values, t1_s: Values, t2_s: Values, tr_s: float, te_s: float, train_s: float = 0.0) -> Tensor:
    """Return the (fast) spin echo: pd (1 - exp(-(TR - train) / T1)) exp(-TE / T2).

    For a fast spin echo `te_s` is the effective echo time and `train_s` the time that the echo train takes, during
    which nothing recovers along the field; 0 for a single, early echo.
    """
    pd, t1, t2 = _tensors(pd, t1_s, t2_s)
    return pd * (1 - torch.exp(-(tr_s - train_s) / t1)) * torch.exp(-te_s / t2)


def inversion_recovery(
    pd: Values, t1_s: Values, t2_s: Values, tr_s: float, te_s: float, ti_s: float, train_s: float = 0.0
) -> Tensor:
    """Return the magnitude of the inversion-prepared (fast) spin echo.

    pd |1 - 2 exp(-TI / T1) + exp(-(TR - train) / T1)| exp(-TE / T2), with `te_s` and `train_s` as in `spin_echo`.
    """
    pd, t1, t2 = _tensors(pd, t1_s, t2_s)
    recovered = 1 - 2 * torch.exp(-ti_s / t1) + torch.exp(-(tr_s - train_s) / t1)
    return pd * recovered.abs() * torch.exp(-te_s / t2)


@dataclass(frozen=True)
class Train:
    """Times in s of an inversion-prepared train of gradient echoes, repeated every `tr_s`, with `n` excitations.

    `ti_s` runs from the inversion to the excitation that fills the centre of k-space, the middle one (n // 2 precede
    it).

    Raises:
        BadInputError: a train that does not fit between the inversion, TI and TR.
    """

    tr_s: float
    te_s: float
    ti_s: float
    echo_spacing_s: float
    n: int

    def __post_init__(self) -> None:
        if self.n < 1 or min(self.before_s, self.after_s) < -1e-9:
            raise BadInputError(
                f"{self.n} excitations every {self.echo_spacing_s:g} s, the middle one at {self.ti_s:g} s, do not fit "
                f"into a repetition time of {self.tr_s:g} s; is that the time between excitations, not inversions?"
            )

    @property
    def before_s(self) -> float:
        """Wait from the inversion to the first excitation."""
        return self.ti_s - self.n // 2 * self.echo_spacing_s

    @property
    def after_s(self) -> float:
        """Wait from the end of the train to the next inversion."""
        return self.tr_s - self.before_s - self.n * self.echo_spacing_s


def mprage(pd: Values, t1_s: Values, t2_star_s: Values, train: Train, flip_deg: float) -> Tensor:
    """Return the magnitude of an inversion-prepared train of spoiled gradient echoes (MPRAGE) in its steady state.

    inversion -- wait -- [excitation, echo spacing] x n -- wait -- next inversion

    Between excitations M becomes M cos(a) E1 + 1 - E1. Mugler & Brookeman, MRM 1990;15:152; the steady state is that
    of Marques et al., NeuroImage 2010;49:1271 (appendix), with one train and perfect inversion.
    """
    pd, t1, t2 = _tensors(pd, t1_s, t2_star_s)
    angle = math.radians(flip_deg)
    durations_s = (train.echo_spacing_s, train.before_s, train.after_s)
    e1, e_before, e_after = (torch.exp(-duration / t1) for duration in durations_s)
    kept = math.cos(angle) * e1
    driven = (1 - e1) / (1 - kept)  # where a train without end would lead
    whole, half = kept**train.n, kept ** (train.n // 2)
    at_end = ((1 - e_before) * whole + driven * (1 - whole)) * e_after + 1 - e_after
    at_end = at_end / (1 + e_before * whole * e_after)
    at_start = 1 - e_before - at_end * e_before
    at_centre = at_start * half + driven * (1 - half)
    return pd * math.sin(angle) * at_centre.abs() * torch.exp(-train.te_s / t2)


def sequence_signal(sequence: PulseSequence, pd: Values, t1_s: Values, t2_s: Values) -> Tensor:
    """Return the signal of `sequence`, whose fields decide the formula; gradient echoes take T2 in the place of T2*.

    | TI  | flip below 90 | echo train length | echo spacing | formula |
    |-----|---------------|-------------------|--------------|---------|
    | yes | yes           | yes               | yes          | `mprage`, the length being its number of excitations |
    | yes | else          |                   |              | `inversion_recovery` |
    | no  | yes           | no                | any          | `spoiled_gre` |
    | no  | else          |                   |              | `spin_echo` |

    A spin echo loses train length x spacing for recovery along the field where both are known, else nothing.

    Raises:
        BadInputError: a sequence without TR or TE, with TI above TR, or with a train that does not fit into TR.
    """
    if sequence.tr_s is None or sequence.te_s is None:
        raise BadInputError(f"the signal of {sequence.weighting} needs tr_s and te_s, got {sequence}")
    tr_s, te_s, ti_s, flip_deg = sequence.tr_s, sequence.te_s, sequence.ti_s, sequence.flip_deg
    n_echoes, spacing_s = sequence.echo_train_length, sequence.echo_spacing_s
    train_s = n_echoes * spacing_s if n_echoes and spacing_s else 0.0
    if ti_s is not None and not 0 < ti_s < tr_s:
        raise BadInputError(f"ti_s must lie between 0 and tr_s, got {sequence}")
    gradient_echo_deg = flip_deg if flip_deg is not None and flip_deg < 90 else None
    if ti_s is not None and gradient_echo_deg is not None and n_echoes and spacing_s:
        times = Train(tr_s, te_s, ti_s, spacing_s, n_echoes)
        return mprage(pd, t1_s, t2_s, times, gradient_echo_deg)
    if (ti_s or 0.0) + train_s >= tr_s:
        raise BadInputError(f"an echo train of {train_s:g} s does not fit into the repetition time, got {sequence}")
    if ti_s is not None:
        return inversion_recovery(pd, t1_s, t2_s, tr_s, te_s, ti_s, train_s)
    if gradient_echo_deg is not None and not n_echoes:
        return spoiled_gre(pd, t1_s, t2_s, tr_s, te_s, gradient_echo_deg)
    return spin_echo(pd, t1_s, t2_s, tr_s, te_s, train_s)


def tissue_signals(
    sequence: PulseSequence, field_t: float, names: tuple[str, ...], table: Mapping[str, Tissue] = TISSUE_TABLE
) -> tuple[float, ...]:
    """Return the signal of each tissue of `names` at `field_t`, in units of the magnetisation of water."""
    return tuple(signal_of(sequence, relaxation(name, field_t, table)) for name in names)


def signal_of(sequence: PulseSequence, tissue: Relaxation) -> float:
    """Return the signal of one tissue in units of the magnetisation of water."""
    return float(sequence_signal(sequence, tissue.pd, tissue.t1_s, tissue.t2_s))


def _tensors(*values: Values) -> tuple[Tensor, ...]:
    """Return tensors of one dtype: that of the first tensor given, else float64."""
    like = next((v for v in values if isinstance(v, Tensor)), torch.zeros(0, dtype=torch.float64))
    return tuple(torch.as_tensor(v, dtype=like.dtype, device=like.device) for v in values)
