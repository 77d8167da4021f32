"""Weighted images as functions of T1, T2 and PD: the contrasts that a denoiser of ordinary images knows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.errors import BadInputError


@dataclass(frozen=True)
class Contrast:
    """A spin echo of `tr_s` and `te_s`, after an inversion `ti_s` before it where there is one.

    The signal per unit of PD is (1 - e^(-TR/T1)) e^(-TE/T2), with inversion (1 - 2 e^(-TI/T1) + e^(-TR/T1)) e^(-TE/T2),
    which changes sign. A TR of infinity is full recovery, a TE of 0 no decay.

    Raises:
        BadInputError: times that are negative, not in order or no seconds.
    """

    name: str
    tr_s: float = math.inf
    te_s: float = 0.0
    ti_s: float | None = None

    def __post_init__(self) -> None:
        if not (self.tr_s > 0 and 0 <= self.te_s <= self.tr_s and (self.ti_s is None or 0 < self.ti_s < self.tr_s)):
            raise BadInputError(f"a contrast needs TR > 0, 0 <= TE <= TR and 0 < TI < TR in s, got {self}")
        if self.te_s > 5 or (self.ti_s or 0.0) > 60 or 60 < self.tr_s < math.inf:
            raise BadInputError(f"{self}: were milliseconds given for seconds?")


# The defaults of pySynthMRI (FiRMLAB-Pisa); FGATIR after Sudhyadhom et al., NeuroImage 2009;47:T44.
T1W = Contrast("T1w", tr_s=0.22)
T2W = Contrast("T2w", te_s=0.082)
FLAIR = Contrast("FLAIR", te_s=0.082, ti_s=2.5)
MP2RAGE = Contrast("MP2RAGE", ti_s=1.3)
FGATIR = Contrast("FGATIR", ti_s=0.409)
DEFAULT_CONTRASTS = (T1W, T2W, FLAIR, MP2RAGE, FGATIR)
"""FGATIR nulls white matter: without it noise in the images changes T1 there seven times as much."""


def contrast_signal(contrast: Contrast, t1_s: Tensor, t2_s: Tensor) -> Tensor:
    """Return the signed signal per unit of PD, in the shape of `t1_s` and `t2_s`; 0 where either is not positive."""
    present = (t1_s > 0) & (t2_s > 0)
    t1, t2 = (torch.where(present, values, torch.ones_like(values)) for values in (t1_s, t2_s))
    at_end = torch.exp(-contrast.tr_s / t1) if math.isfinite(contrast.tr_s) else torch.zeros_like(t1)
    recovered = 1 - at_end if contrast.ti_s is None else 1 - 2 * torch.exp(-contrast.ti_s / t1) + at_end
    return torch.where(present, recovered * torch.exp(-contrast.te_s / t2), 0)


def weighted_signals(contrasts: tuple[Contrast, ...], t1_s: Tensor, t2_s: Tensor) -> Tensor:
    """Return the signed weighted signals (voxels, contrasts) per unit of PD of `t1_s` and `t2_s` (voxels,).

    Raises:
        BadInputError: no contrasts.
    """
    if not contrasts:
        raise BadInputError("at least one contrast is needed")
    return torch.stack([contrast_signal(contrast, t1_s, t2_s) for contrast in contrasts], 1)


def weighted_image(contrast: Contrast, t1_s: Tensor, t2_s: Tensor, pd: Tensor, *, signed: bool = False) -> Tensor:
    """Return the weighted image of maps (X, Y, Z), a magnitude, or with the sign of the inversion where `signed`.

    `pd` may be complex: its magnitude counts.
    """
    image = pd.abs() * contrast_signal(contrast, t1_s, t2_s)
    return image if signed else image.abs()
