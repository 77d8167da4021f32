"""What the values of an image mean: which are a magnitude, which can be made one, and which cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mrcore.notes import Problem, Severity

Array = NDArray[np.float32]
_Kind = TypeVar("_Kind", bound=np.generic)

_LARGEST_INTENSITY = 1e12
_LITTLE = 0.02
"""Of the bright voxels: what is this far from 0 is more than rounding, and than most of what interpolation overshoots
by."""
_SIGNED_SHARE = 0.2
"""Of all that is far from 0, below 0. Three interpolated brains: at most 0.0013, a brain cut off in k-space to half its
resolution 0.11; z-scores and phases about a half."""
_FLAT_SHARE = 0.3
"""Of the voxels that are not background, those equal to both neighbours. Label maps: 0.6 and more; scans: to 0.11."""
_FEW_NUMBERS, _MANY_NUMBERS = 20, 2000
"""Different whole numbers: fewer are labels in any case; label maps of FreeSurfer have some hundreds, 12-bit scans
thousands."""
_CUT_SHARE, _FLATTENED_SHARE, _MASK_SHARE = 0.01, 0.25, 0.5
"""Of the bright voxels, those of the highest value: 0.003 at most in 40 scans of 8 to 16 bits."""
_FULL = (1.0, 100.0, 255.0)
"""What maps of probability have for certainty."""
_RAYLEIGH = (1.6, 2.3)
"""Mean over sd of air in a magnitude image: 1.91, give or take what else a face of the field of view has."""


@dataclass(frozen=True, eq=False)
class Understood:
    """An image as a magnitude (`data`, at least 0 where nothing is fatal), and what is wrong with it.

    `is_map` says that it looks like labels, a mask or probabilities.
    """

    data: Array
    problems: tuple[Problem, ...]
    is_map: bool = False


def fill_outside(data: Array) -> tuple[Array, list[Problem]]:
    """Return an image without NaN and infinity: a background of them becomes 0, within the object they are fatal."""
    bad = ~np.isfinite(data)
    n_bad = int(np.count_nonzero(bad))
    if not n_bad:
        return data, []
    parts, _ = ndimage.label(bad)
    outside = np.unique(np.concatenate([side.ravel() for side in _faces(parts)]))
    n_inside = n_bad - int(np.isin(parts[bad], outside[outside > 0]).sum())
    share = f"{n_bad} of {data.size} voxels are NaN or infinite"
    if n_bad == data.size:
        return data, [Problem(f"{share}; export the image again")]
    if n_inside:
        return data, [
            Problem(f"{share}, {n_inside} of them within the object; replace them (for instance with 0) first")
        ]
    text = f"{share}; they are the background, and were set to 0"
    return np.where(bad, np.float32(0), data), [Problem(text, Severity.CAUTION)]


def range_problems(data: Array) -> list[Problem]:
    """Return why finite values can be those of no image and of no map."""
    low, high = float(data.min()), float(data.max())
    if low == high:
        return [Problem(f"the image is constant: every voxel is {low:.6g}; export the scan again")]
    largest = max(-low, high)
    if largest > _LARGEST_INTENSITY or high - low < 1e-6 * largest:
        text = f"values from {low:.7g} to {high:.7g} are not those of a scan; check type, slope and intercept"
        return [Problem(f"{text} of the header")]
    return []


def understand(data: Array) -> Understood:
    """Return the finite values of an image (X, Y, Z) as a magnitude, and what is wrong with them.

    A constant background other than 0 is subtracted, and so is the lowest value of an image that was normalised to
    below 0 if its air shows that this is the zero of a magnitude. Few or small values below 0 become 0. Values of
    which no magnitude can be made are fatal: labels, masks, signed images, overflown integers, cut-off tissues.
    """
    if problems := range_problems(data):
        return Understood(data, tuple(problems))
    if text := _map_text(data):
        return Understood(data, (Problem(text),), is_map=True)
    magnitude, problems = _magnitude(data)
    if any(problem.fatal for problem in problems):
        return Understood(data, tuple(problems))
    return Understood(magnitude, (*problems, *_level_problems(magnitude)))


def _map_text(data: Array) -> str:
    """Return why an image is a map of labels, a mask or probabilities; empty where it looks like a scan."""
    low, high = float(data.min()), float(data.max())
    advice = "give the scan itself (maps are given with --tissues or --mask)"
    base = _constant_background(data)
    content = data != (0.0 if base is None else base)
    if low >= 0 and high - low <= _MANY_NUMBERS * 10 and bool((data == np.rint(data)).all()):
        n_numbers = int(np.count_nonzero(np.bincount((data - low).astype(np.int64).ravel())))
        values = f"{n_numbers} whole numbers from {low:g} to {high:g}"
        if n_numbers == 2:
            return f"this is a mask ({low:g} and {high:g}), not a scan; {advice}"
        if n_numbers <= _FEW_NUMBERS or (n_numbers <= _MANY_NUMBERS and _flat_share(data, content) > _FLAT_SHARE):
            return f"this is a label map ({values}, in areas of one value), not a scan; {advice}"
    if np.isin(data, (low, high)).all():
        return f"this is a mask ({low:g} and {high:g}), not a scan; {advice}"
    full = high in _FULL and low >= 0 and base != high
    if full and float((data[_bright(data)] == high).mean()) > _MASK_SHARE:
        return f"this is a mask or probability map (most of what is bright is exactly {high:g}), not a scan; {advice}"
    return ""


def _magnitude(data: Array) -> tuple[Array, list[Problem]]:
    """Return the values as a magnitude, and what was done or is wrong."""
    base, problems = _constant_background(data), []
    low, high = float(data.min()), float(data.max())
    if base is not None and base != 0:
        if _below_share(data - np.float32(base)) > 0.5:
            text = f"the background ({base:g}) is brighter than the object; give the image with a background of 0"
            return data, [Problem(text)]
        if _below_share(data - np.float32(base)) <= _SIGNED_SHARE:
            text = f"the background is {base:g} everywhere, not 0: that was subtracted from all voxels"
            data, problems = data - np.float32(base), [Problem(text, Severity.CAUTION)]
    elif _starts_elsewhere(data) and _lowest_is_zero(data - np.float32(low)):
        text = f"values run from {low:.4g} to {high:.4g}, and the noise in the air begins at {low:.4g}, not 0: that"
        data, problems = data - np.float32(low), [Problem(f"{text} was subtracted from all voxels", Severity.CAUTION)]
    negative = float((data < 0).mean())
    if not negative:
        return data, problems
    if _is_wrapped(data):
        text = f"values jump from {high:g} to {low:g} within the object: integers overflowed when the file was written"
        return data, [Problem(f"{text}; export the scan again, as floats or scaled")]
    if _below_share(data) > _SIGNED_SHARE or _is_noise_about_zero(data):
        text = f"{negative:.1%} of the voxels are below 0 (from {low:.4g} to {high:.4g}): this is no magnitude, but a"
        text += " phase, a real part, z-scores, or otherwise normalised"
        return data, [Problem(f"{text}; give the magnitude as it was reconstructed")]
    text = f"{negative:.2%} of the voxels are below 0 (lowest {float(data.min()):.4g}), as interpolation makes them"
    severity = Severity.CAUTION if negative > 0.001 else Severity.NOTE
    return data.clip(0, None), [*problems, Problem(f"{text}; they were set to 0", severity)]


def _level_problems(data: Array) -> list[Problem]:
    """Return what is wrong with the levels of a magnitude."""
    problems = _cut_problems(data)
    zeros = float((data == 0).mean())
    if zeros > 0.98:
        text = f"{zeros:.1%} of the voxels are 0: there is little in this image"
        problems.append(Problem(text, Severity.CAUTION))
    low, level = float(data.min()), _level(data)
    if low > 0.4 * level:
        text = f"no voxel is darker than {low:.4g}, with {level:.4g} for the bright ones: an offset was added"
        problems.append(Problem(f"{text}; give the image without it"))
    elif low > 0.1 * level:
        text = f"no voxel is darker than {low:.4g}, with {level:.4g} for the bright ones: an offset may have been added"
        problems.append(Problem(text, Severity.CAUTION))
    return problems


def _cut_problems(data: Array) -> list[Problem]:
    """Return what a highest value that many voxels have does to a scan."""
    high = float(data.max())
    bright = data[_bright(data)]
    n_cut = int((bright == high).sum())
    cut = n_cut / bright.size
    if cut <= _CUT_SHARE or n_cut <= 10:
        return []
    counts = np.unique(data[(data > 0) & (data < high)], return_counts=True)[1]
    if counts.size and counts.max() > 0.1 * n_cut and counts.max() > _CUT_SHARE * bright.size:
        return [Problem("large areas of one value each: this was computed, not measured", Severity.NOTE)]
    text = f"intensities were cut off: {cut:.1%} of the bright voxels have the highest value ({high:.6g})"
    if cut > _FLATTENED_SHARE:
        return [Problem(f"{text}, tissues cannot be told apart; export the scan with a wider range")]
    return [Problem(f"{text}, bright tissue is too dark", Severity.CAUTION)]


def _starts_elsewhere(data: Array) -> bool:
    """Whether the lowest value is far from the 0 of a magnitude, below or above, and no overflow."""
    if float(data.min()) >= 0:
        return float(data.min()) > _LITTLE * _level(data)
    return _below_share(data) > _SIGNED_SHARE and not _is_wrapped(data)


def _constant_background(data: Array) -> float | None:
    """Return the value that most of the outermost voxels have, and hardly any voxel lies below; None without one."""
    border = np.concatenate([side.ravel() for side in _faces(data)])
    values, counts = np.unique(border, return_counts=True)
    common = float(values[counts.argmax()])
    if counts.max() > 0.5 * border.size and float((data < common).mean()) <= _LITTLE:
        return common
    # After interpolation it is constant but for rounding.
    middle, extent = float(np.median(border)), float(data.max() - data.min())
    near = float((np.abs(border - middle) <= 1e-3 * extent).mean())
    return middle if near > 0.5 and abs(middle) > _LITTLE * extent else None


def _is_wrapped(data: Array) -> bool:
    """Whether negative values are the bright ones of integers that overflowed: far below 0, beside the highest."""
    low, extent = float(data.min()), float(data.max() - data.min())
    negative = data < 0
    if low > -0.25 * extent or float((data[negative] < -_LITTLE * extent).mean()) < 0.99:
        return False
    n_beside = n_jumps = 0
    for axis in range(3):
        steps = np.abs(np.diff(data, axis=axis))
        edge = np.diff(negative, axis=axis)
        n_beside += int(edge.sum())
        n_jumps += int((steps[edge] > 0.5 * extent).sum())
    return n_jumps > 0.2 * n_beside and float(negative.mean()) < 0.4


def _lowest_is_zero(shifted: Array) -> bool:
    """Whether the lowest value, made 0, is the zero of a magnitude: its air is dark, and spread as Rayleigh noise."""
    faces, level = _faces(shifted), _level(shifted)
    values, counts = np.unique(np.concatenate([side.ravel() for side in faces]), return_counts=True)
    if counts.max() > 0.1 * counts.sum() and values[counts.argmax()] > _LITTLE * level:
        return False  # a constant border that is not the lowest: what is outside a mask, not air
    air = min(faces, key=lambda side: float(side.mean()))
    mean, sd = float(air.mean()), float(air.std())
    return mean < 0.25 * level and _RAYLEIGH[0] * sd < mean < _RAYLEIGH[1] * sd


def _is_noise_about_zero(data: Array) -> bool:
    """Whether air is noise about 0, as in a real part: as strong at the border as anywhere below 0, of both signs.

    What interpolation overshoots is strongest beside the object.
    """
    air = min(_faces(data), key=lambda side: float(np.square(side, dtype=np.float64).mean()))
    air = air[air != 0]
    negative = data[data < 0]
    if air.size < 100 or not 0.35 < float((air < 0).mean()) < 0.65:
        return False
    at_border, anywhere = (float(np.square(values, dtype=np.float64).mean()) for values in (air, negative))
    return at_border > 0.36 * anywhere and at_border**0.5 > 1e-3 * _level(data)


def _below_share(data: Array) -> float:
    """Return the share below 0 of all voxels that are far from 0."""
    far = _LITTLE * _level(np.abs(data))
    below, above = int((data < -far).sum()), int((data > far).sum())
    return below / max(below + above, 1)


def _flat_share(data: Array, inside: NDArray[np.bool_]) -> float:
    """Return the share of voxels `inside` that equal both neighbours, along the middle one of three axes.

    Slices that were repeated are flat along one axis, thin structures in thick slices are not flat along another.
    """
    shares = []
    for axis in range(3):
        along, within = np.moveaxis(data, axis, 0), np.moveaxis(inside, axis, 0)[1:-1]
        flat = (along[1:-1] == along[:-2]) & (along[1:-1] == along[2:]) & within
        shares.append(int(flat.sum()) / max(int(within.sum()), 1))
    return sorted(shares)[1]


def _bright(data: Array) -> NDArray[np.bool_]:
    """Return the voxels above the mean of the positive ones: the bright half of the object, whatever the background."""
    positive = data[data > 0]
    bright: NDArray[np.bool_] = data >= (float(positive.mean(dtype=np.float64)) if positive.size else -np.inf)
    return bright


def _level(data: Array) -> float:
    """Return the 99th percentile of the positive values, of up to a million of them."""
    values = data.ravel()[:: max(1, data.size // 1_000_000)]
    positive = values[values > 0]
    return float(np.percentile(positive, 99)) if positive.size else 0.0


def _faces(data: NDArray[_Kind]) -> list[NDArray[_Kind]]:
    return [
        data[(*[slice(None)] * axis, slice(end, end + 1))] for axis in range(3) for end in (0, data.shape[axis] - 1)
    ]
