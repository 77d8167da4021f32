"""What makes an image usable as a scan: the one list of findings that every verb and `mrkit info` share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mrcore.data.volume import Volume
from mrcore.errors import BadInputError, MrkitError
from mrcore.intensities import understand
from mrcore.noise_estimate import estimate_noise
from mrcore.notes import Problem, Severity

_NO_UNITS = ("", "arbitrary", "a.u.", "au", "n/a")
_SMALLEST_FOV_MM = 80
_LEAST_SNR = 5


@dataclass(frozen=True, eq=False)
class Scan:
    """An image as a scan, everything found about it, and how noisy it is.

    Attributes:
        volume: float32 magnitude; where a problem is fatal, as it was given.
        problems: everything found.
        is_map: whether it is or looks like labels, a mask, probabilities or a quantitative map.
        noise_sd: estimate per real channel over the whole image; None where none can be made.
        noise_method: how it was made, or why not.
        snr: median of the bright half of the object over `noise_sd`.
    """

    volume: Volume
    problems: tuple[Problem, ...]
    is_map: bool = False
    noise_sd: float | None = None
    noise_method: str = "not estimated: not a scan"
    snr: float | None = None


def examine(volume: Volume) -> Scan:
    """Return an image as a scan, and everything that is wrong with it as one: values, sidecar, field of view, noise.

    Values whose zero is known to be elsewhere are shifted, few values below 0 set to 0 (see `mrcore.intensities`).
    """
    if volume.data.is_complex():
        return Scan(volume, (Problem("the image is complex; give its magnitude (for instance the absolute value)"),))
    data = volume.data.detach().float().cpu().numpy()
    if text := _stated_map(volume):
        return Scan(volume, (Problem(text),), is_map=True)
    found = understand(np.ascontiguousarray(data))
    problems = [*found.problems, *_place_problems(volume)]
    if any(problem.fatal for problem in found.problems):
        return Scan(volume, tuple(problems), found.is_map)
    magnitude = Volume(torch.from_numpy(found.data).to(volume.data.device), volume.grid, volume.meta)
    noise_sd, method, snr = _noise(magnitude)
    if snr is not None and snr < _LEAST_SNR:
        text = f"the SNR of the object is about {snr:.1f}: too little for reliable tissues"
        problems.append(Problem(text, Severity.CAUTION))
    return Scan(magnitude, tuple(problems), False, noise_sd, method, snr)


def as_scan(volume: Volume) -> tuple[Volume, tuple[str, ...]]:
    """Return an image as the float32 magnitude that every verb works on, and what a reader must know of it.

    What was found when the file was read comes first. `Warnings` in `meta` keeps the notes, so that an image that was
    made a scan before brings them along.

    Raises:
        BadInputError: an image that can be no scan; the message says why and what to do.
    """
    found = examine(volume)
    name = str(volume.meta.get("SourceFile", "the image"))
    fatal = [problem.text for problem in found.problems if problem.fatal]
    if fatal:
        more = f" (and {len(fatal) - 1} more; see `mrkit info`)" if len(fatal) > 1 else ""
        raise BadInputError(f"{name}: {fatal[0]}{more}")
    before = volume.meta.get("Warnings")
    notes = [*(before if isinstance(before, list | tuple) else ()), *(p.noted(name) for p in found.problems)]
    kept = tuple(dict.fromkeys(notes))
    return Volume(found.volume.data, volume.grid, {**volume.meta, "Warnings": kept}), kept


def _stated_map(volume: Volume) -> str:
    """Return why the sidecar says that this is no scan; empty where it does not."""
    units = volume.meta.get("Units")
    if isinstance(units, str) and units.strip().lower() not in _NO_UNITS:
        return f"the sidecar says that this is a map in {units}, not a scan; give the scan itself"
    if "LabelMap" in volume.meta:
        return (
            "the sidecar says that this is a map of tissues, not a scan; give the scan itself (maps are given with "
            "--tissues or --mask)"
        )
    return ""


def _place_problems(volume: Volume) -> list[Problem]:
    if min(volume.grid.fov_mm) >= _SMALLEST_FOV_MM:
        return []
    text = f"the field of view is only {min(volume.grid.fov_mm):.0f} mm along one axis: not a whole brain"
    return [Problem(text, Severity.NOTE)]


def _noise(volume: Volume) -> tuple[float | None, str, float | None]:
    """Return noise sd, how it was found, and the SNR of the bright half of the object."""
    data = volume.data
    bright = data >= data[data > 0].mean()
    try:
        found = estimate_noise(data, bright)
    except MrkitError as error:
        return None, str(error), None
    return found.sd, found.message, float(data[bright].median()) / found.sd if found.sd > 0 else None
