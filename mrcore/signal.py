"""Closed forms of the steady-state signal: times in s, angles in degrees, result in units of `pd`.

Perfect pulses and spoiling, monoexponential decay. Tissue values may be floats or tensors that broadcast.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from mrcore.acquisition import Sequence
from mrcore.errors import BadInputError
from mrcore.tissue import TISSUE_TABLE, Relaxation, Tissue, relaxation

Values = Tensor | float


def spoiled_gre(pd: Values, t1_s: Values, t2_star_s: Values, tr_s: float, te_s: float, flip_deg: float) -> Tensor:
    """Return the spoiled gradient echo: pd sin(a) (1 - E1) / (1 - cos(a) E1) exp(-TE / T2*), E1 = exp(-TR / T1).

    Ernst & Anderson, Rev Sci Instrum 1966;37:93.
    """
    pd, t1, t2 = _tensors(pd, t1_s, t2_star_s)
    angle = math.radians(flip_deg)
    e1 = torch.exp(-tr_s / t1)
    return pd * math.sin(angle) * (1 - e1) / (1 - math.cos(angle) * e1) * torch.exp(-te_s / t2)


def ernst_angle_deg(t1_s: float, tr_s: float) -> float:
    """Return the flip angle of most signal, arccos(exp(-TR / T1))."""
    return math.degrees(math.acos(math.exp(-tr_s / t1_s)))


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


def sequence_signal(sequence: Sequence, pd: Values, t1_s: Values, t2_s: Values) -> Tensor:
    """Return the signal of `sequence`: inversion recovery where it has a TI, spin echo where it has no flip angle.

    A flip angle below 90 degrees without echo train is a spoiled gradient echo, with T2 in the place of T2*. The
    duration of the echo train is not part of a `Sequence` and taken as 0.

    Raises:
        BadInputError: a sequence without TR or TE, or with TI above TR.
    """
    if sequence.tr_s is None or sequence.te_s is None:
        raise BadInputError(f"the signal of {sequence.weighting} needs tr_s and te_s, got {sequence}")
    if sequence.ti_s is not None:
        if not 0 < sequence.ti_s < sequence.tr_s:
            raise BadInputError(f"ti_s must lie between 0 and tr_s, got {sequence}")
        return inversion_recovery(pd, t1_s, t2_s, sequence.tr_s, sequence.te_s, sequence.ti_s)
    if sequence.flip_deg is not None and sequence.flip_deg < 90 and not sequence.echo_train_length:
        return spoiled_gre(pd, t1_s, t2_s, sequence.tr_s, sequence.te_s, sequence.flip_deg)
    return spin_echo(pd, t1_s, t2_s, sequence.tr_s, sequence.te_s)


def tissue_signals(
    sequence: Sequence, field_t: float, names: tuple[str, ...], table: Mapping[str, Tissue] = TISSUE_TABLE
) -> tuple[float, ...]:
    """Return the signal of each tissue of `names` at `field_t`, in units of the magnetisation of water."""
    return tuple(signal_of(sequence, relaxation(name, field_t, table)) for name in names)


def signal_of(sequence: Sequence, tissue: Relaxation) -> float:
    """Return the signal of one tissue in units of the magnetisation of water."""
    return float(sequence_signal(sequence, tissue.pd, tissue.t1_s, tissue.t2_s))


def _tensors(*values: Values) -> tuple[Tensor, ...]:
    """Return tensors of one dtype: that of the first tensor given, else float64."""
    like = next((v for v in values if isinstance(v, Tensor)), torch.zeros(0, dtype=torch.float64))
    return tuple(torch.as_tensor(v, dtype=like.dtype, device=like.device) for v in values)
