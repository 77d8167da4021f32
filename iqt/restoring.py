"""One scan restored: Wiener start, network, mirrored copies averaged, and the tether of the exact data step."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

from iqt.restorer import Restorer, conditions_of, wiener_start
from mrcore.data.brief import Brief
from mrcore.data.grid import Triple
from mrcore.errors import BadInputError
from mrcore.operators.separable import SeparableOp
from mrcore.wiener import gaussian_solver


@dataclass(frozen=True, eq=False, repr=False)
class Restoration(Brief):
    """What became of one scan, on the lattice (X, Y, Z).

    Attributes:
        image: the network's mean over mirrored copies.
        start: the Wiener estimate it began from, which knows the scan alone.
        spread: sd over the mirrored copies, a lower bound of the network's own error; None of a single pass.
    """

    image: Tensor
    start: Tensor
    spread: Tensor | None


def restore(
    net: Restorer,
    operator: SeparableOp,
    scan: Tensor,
    noise_sd: float,
    voxel_mm: Triple,
    lattice_mm: float,
    n_mirrored: int = 8,
) -> Restoration:
    """Restore a scan (x, y, z) whose bright tissue is about 1; the slice axis is last, the lattice along its axes.

    `n_mirrored` copies of the start, mirrored along none, one, two or all axes, are restored, mirrored back and
    averaged: 1 is one pass, 8 take eight times as long.

    Raises:
        BadInputError: a scan that is not of the operator's shape, noise that is not positive, copies other than 1 to 8.
    """
    if tuple(scan.shape) != operator.shape_out:
        raise BadInputError(f"the operator makes scans {operator.shape_out}, got one of {tuple(scan.shape)}")
    if not 0 < noise_sd < math.inf or not 1 <= n_mirrored <= 8:
        raise BadInputError(f"noise is positive and copies are 1 to 8, got {noise_sd} and {n_mirrored}")
    sd = torch.tensor([noise_sd], dtype=scan.dtype, device=scan.device)
    start = wiener_start(operator, scan[None], sd, lattice_mm)
    conditions = conditions_of(sd, voxel_mm)
    padded = _padded(start, net.net.settings.multiple)
    copies = []
    for axes in list(_mirrors())[:n_mirrored]:
        with torch.no_grad():
            restored = net(padded.flip(axes), conditions).flip(axes)
        copies.append(restored[0, : start.shape[1], : start.shape[2], : start.shape[3]])
    stacked = torch.stack(copies)
    spread = stacked.std(0) if len(copies) > 1 else None
    return Restoration(stacked.mean(0).clamp_min(0), start[0], spread)


def tethered(image: Tensor, operator: SeparableOp, scan: Tensor, noise_sd: float, trust_sd: float) -> Tensor:
    """Return the minimiser of |A x - scan|^2 / noise_sd^2 + |x - image|^2 / trust_sd^2, exactly.

    `trust_sd` is the error that the image is trusted to have: a large one follows the scan wherever it says anything.

    Raises:
        BadInputError: sds that are not positive.
    """
    if not (0 < noise_sd < math.inf and 0 < trust_sd < math.inf):
        raise BadInputError(f"noise and trust are positive sds, got {noise_sd} and {trust_sd}")
    return image + gaussian_solver(operator, None)(scan - operator(image), (noise_sd / trust_sd) ** 2)


def _mirrors() -> itertools.chain[tuple[int, ...]]:
    """Return the eight sets of axes of (B, X, Y, Z) to mirror, none first."""
    return itertools.chain.from_iterable(itertools.combinations((1, 2, 3), n) for n in range(4))


def _padded(images: Tensor, multiple: tuple[int, int, int]) -> Tensor:
    """Return images (B, X, Y, Z) with their edges repeated up to multiples of the network's fold."""
    missing = [-n % m for n, m in zip(images.shape[1:], multiple, strict=True)]
    widths = [w for n in reversed(missing) for w in (0, n)]
    return functional.pad(images[:, None], widths, mode="replicate")[:, 0]
