"""The pulse sequence of a fingerprint: an inversion and a train of excitations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.data.brief import Brief
from mrcore.errors import BadInputError


@dataclass(frozen=True, eq=False, repr=False)
class MrfSequence(Brief):
    """A train of excitations: `flip_deg`, `tr_s`, `te_s` and the RF phase `phase_deg`, each (frames,) float64.

    inversion -- TI -- [excitation, echo at TE, next excitation at TR] x frames

    The inversion comes `ti_s` before the first excitation and leaves M = -`inversion_efficiency` M0 (1 perfect, 0
    saturates); None: the train starts at equilibrium. A single TR, TE or phase stands for all frames. The receiver
    follows the RF phase; None is the usual phase of the kind of sequence: constant for FISP, alternating for balanced
    SSFP.

    Raises:
        BadInputError: unequal lengths, numbers that are not finite, times that do not fit or are no seconds.
    """

    flip_deg: Tensor
    tr_s: Tensor
    te_s: Tensor
    ti_s: float | None = None
    inversion_efficiency: float = 1.0
    phase_deg: Tensor | None = None

    def __post_init__(self) -> None:
        flips = torch.as_tensor(self.flip_deg, dtype=torch.float64, device="cpu")
        if flips.ndim != 1 or not len(flips):
            raise BadInputError(f"flip_deg must be a list of angles, got the shape {tuple(flips.shape)}")
        given = {"flip_deg": flips, "tr_s": self.tr_s, "te_s": self.te_s}
        if self.phase_deg is not None:
            given["phase_deg"] = self.phase_deg
        for name, values in given.items():
            object.__setattr__(self, name, _per_frame(name, values, len(flips)))
        if float(self.tr_s.max()) > 60:
            raise BadInputError(f"a TR of {float(self.tr_s.max()):g} s: were milliseconds given for seconds?")
        if float(self.te_s.max()) > 1:
            raise BadInputError(f"a TE of {float(self.te_s.max()):g} s: were milliseconds given for seconds?")
        if bool((self.te_s < 0).any()) or bool((self.tr_s <= 0).any()) or bool((self.te_s > self.tr_s).any()):
            raise BadInputError(
                "every frame needs 0 <= TE <= TR and TR > 0 in s, got TE up to "
                f"{float(self.te_s.max()):g} s and TR from {float(self.tr_s.min()):g} s"
            )
        if self.ti_s is not None and not 0 <= self.ti_s <= 60:
            raise BadInputError(f"ti_s must lie between 0 and 60 s, got {self.ti_s}; were milliseconds given?")
        if not 0 <= self.inversion_efficiency <= 1:
            raise BadInputError(f"inversion_efficiency must lie between 0 and 1, got {self.inversion_efficiency}")

    @property
    def n_frames(self) -> int:
        """Number of excitations."""
        return len(self.flip_deg)

    @property
    def duration_s(self) -> float:
        """Time from the inversion, or the first excitation, to the end of the last repetition."""
        return (self.ti_s or 0.0) + float(self.tr_s.sum())

    def prepared(self, t1_s: Tensor) -> Tensor:
        """Return the longitudinal magnetisation at the first excitation: 1 - (1 + efficiency) exp(-TI / T1)."""
        if self.ti_s is None:
            return torch.ones_like(t1_s)
        return 1 - (1 + self.inversion_efficiency) * torch.exp(-self.ti_s / t1_s)


def _per_frame(name: str, values: Tensor, n_frames: int) -> Tensor:
    """Return `values` as a float64 tensor of one number a frame, on the CPU."""
    tensor = torch.as_tensor(values, dtype=torch.float64, device="cpu").clone()
    if tensor.ndim == 0:
        tensor = tensor.expand(n_frames).contiguous()
    if tensor.shape != (n_frames,):
        raise BadInputError(f"{name} must be one number or {n_frames}, one a frame, got {tuple(tensor.shape)}")
    if not bool(tensor.isfinite().all()):
        raise BadInputError(f"{name} must be finite")
    return tensor
