"""Start a fit from another image: an earlier one of the same person, or a template."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from inr.baselines import tikhonov
from mrcore.errors import BadInputError
from mrcore.grid import Grid
from mrcore.register import RegisterSettings, register
from mrcore.resample import resample
from mrcore.volume import Volume
from mrkit.prepare import PreparedScan
from mrkit.trust import on_scan

RIGID = RegisterSettings(dof=6, levels_mm=(8.0, 4.0))


def warm_started(ready: PreparedScan, init: Volume, notes: list[str]) -> PreparedScan:
    """Return the scan with a start that has what the scan does not show from `init`; `notes` learn how well it fits.

    `init` is moved rigidly onto the scan's image, its intensities are fitted linearly to the scan through the forward
    model, and what the scan says against it is taken away by Tikhonov's solution for the difference.

    Raises:
        BadInputError: an image that has nothing in common with the scan.
    """
    fixed = Volume(ready.start, ready.lattice)
    found = register(init, fixed, RIGID, fixed_mask=ready.tissues.mask)
    moved = Grid(init.grid.shape, found.motion @ init.grid.affine)
    there = resample(Volume(init.data, moved), ready.lattice, order=3).data.clamp_min(0)
    of_scan = on_scan(Volume(ready.tissues.mask.float(), ready.lattice), ready.scan)
    gain, offset, share = _linear(ready.operator(there)[of_scan], ready.scan.data[of_scan])
    guess = (gain * there + offset).clamp_min(0) * ready.foreground
    against = ready.scan.data - ready.operator(guess)
    blank = torch.zeros_like(guess)
    change = tikhonov(ready.operator, against, ready.noise_sd, blank, ready.lattice.spacing_mm).x
    notes.append(
        f"started from another image, laid over the scan ({found.message}); through the forward model it explains "
        f"{100 * share:.0f} % of the scan's variance; detail that the scan does not show may be that image's"
    )
    return replace(ready, start=(guess + change).clamp_min(0))


def _linear(predicted: Tensor, seen: Tensor) -> tuple[float, float, float]:
    """Return gain and offset of the least-squares line from `predicted` to `seen`, and the share of variance."""
    x, y = predicted.double() - predicted.double().mean(), seen.double() - seen.double().mean()
    power, both, total = float(x.square().sum()), float((x * y).sum()), float(y.square().sum())
    if not power > 0 or not both > 0:
        raise BadInputError("the image to start from has nothing in common with the scan; is it of the same contrast?")
    gain = both / power
    offset = float(seen.double().mean()) - gain * float(predicted.double().mean())
    return gain, offset, both**2 / (power * total)
