"""The verb `quantify`: raw data of a fingerprint in, maps of T1, T2 and PD out."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mrcore.volume import Volume


@dataclass(frozen=True, eq=False)
class Quantified:
    """Maps on the grid of the raw data.

    `t1_s`, `t2_s` and their least standard deviations `t1_sd_s`, `t2_sd_s` (Cramer-Rao) are 0 outside `mask`; `pd` is
    complex and has no unit; `b1` is None where it was not fitted. `residual`, 0 to 1, is the share of a voxel's signal
    that no atom explains. `history` is one value a step, `message` says how the method ended.
    """

    t1_s: Volume
    t2_s: Volume
    pd: Volume
    b1: Volume | None
    t1_sd_s: Volume
    t2_sd_s: Volume
    pd_sd: Volume
    residual: Volume
    mask: Tensor
    converged: bool
    n_iter: int
    history: tuple[float, ...]
    message: str
    notes: tuple[str, ...]
