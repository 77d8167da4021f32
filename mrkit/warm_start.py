"""Start a fit from another image: an earlier one of the same person, or a template."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from inr.baselines import tikhonov
from mrcore.errors import BadInputError
from mrcore.grid import Grid
from mrcore.linop import LinearOp
from mrcore.register import RegisterSettings, register
from mrcore.resample import resample
from mrcore.volume import Volume
from mrkit.prepare import PreparedScan
from mrkit.trust import on_scan

RIGID = RegisterSettings(dof=6, levels_mm=(8.0, 4.0))


def laid_over(ready: PreparedScan, init: Volume, notes: list[str]) -> Tensor:
    """Return `init` (X, Y, Z; WM = 1) as a guess of the scan's image; `notes` learn how well it fits.

    It is moved rigidly onto the scan's image, and its intensities are fitted linearly to the scan through the forward
    model.

    Raises:
        BadInputError: an image that has nothing in common with the scan.
    """
    fixed = Volume(ready.start, ready.lattice)
    found = register(init, fixed, RIGID, fixed_mask=ready.tissues.mask)
    moved = Grid(init.grid.shape, found.motion @ init.grid.affine)
    there = resample(Volume(init.data, moved), ready.lattice, order=3).data.clamp_min(0)
    of_scan = on_scan(Volume(ready.tissues.mask.float(), ready.lattice), ready.scan)
    gain, offset, share = _linear(ready.operator(there)[of_scan], ready.scan.data[of_scan])
    notes.append(
        f"started from another image, laid over the scan ({found.message}); through the forward model it explains "
        f"{100 * share:.0f} % of the scan's variance; detail that the scan does not show may be that image's"
    )
    return (gain * there + offset).clamp_min(0) * ready.foreground


def started_from(guess: Tensor, operator: LinearOp, scan: Tensor, noise_sd: float, lattice: Grid) -> Tensor:
    """Return `guess` (X, Y, Z) without what `scan` says against it: Tikhonov's solution for the difference is added.

    Of a part of a scan (see `inr.heldout`) the start has nothing of what is hidden.
    """
    blank = torch.zeros_like(guess)
    change: Tensor = tikhonov(operator, scan - operator(guess), noise_sd, blank, lattice.spacing_mm).x
    return (guess + change).clamp_min(0)


def warm_started(ready: PreparedScan, guess: Tensor) -> PreparedScan:
    """Return the scan with a start that has what the scan does not show from the `guess` of `laid_over`."""
    return replace(ready, start=started_from(guess, ready.operator, ready.scan.data, ready.noise_sd, ready.lattice))


def _linear(predicted: Tensor, seen: Tensor) -> tuple[float, float, float]:
    """Return gain and offset of the least-squares line from `predicted` to `seen`, and the share of variance."""
    x, y = predicted.double() - predicted.double().mean(), seen.double() - seen.double().mean()
    power, both, total = float(x.square().sum()), float((x * y).sum()), float(y.square().sum())
    if not power > 0 or not both > 0:
        raise BadInputError("the image to start from has nothing in common with the scan; is it of the same contrast?")
    gain = both / power
    offset = float(seen.double().mean()) - gain * float(predicted.double().mean())
    return gain, offset, both**2 / (power * total)
