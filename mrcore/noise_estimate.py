"""Noise of magnitude MR images, estimated from the air around the object or from residuals inside it."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mrcore.errors import BadInputError

BACKGROUND, RESIDUAL = "background", "residual"

_RAYLEIGH_MEDIAN = math.sqrt(2 * math.log(2))
_RAYLEIGH_MEAN = math.sqrt(math.pi / 2)
_RAYLEIGH_SD = math.sqrt(2 - math.pi / 2)


@dataclass(frozen=True)
class NoiseEstimate:
    """Estimated noise `sd` per real channel, the `method` used, voxels it rests on, and a `message` for reports.

    `plausible` is False where the values are not distributed as such noise is: ghosts, ringing, filters.
    """

    sd: float
    method: str
    n_voxels: int
    message: str
    plausible: bool = True


def background_noise(image: Tensor, mask: Tensor | None = None) -> NoiseEstimate | None:
    """Estimate noise from the air around the object in a magnitude image (X, Y, Z); None where there is no air left.

    Air is what lies below the noise's own 4 sd, more than two voxels outside `mask` (X, Y, Z, bool) where one is
    given. Voxels of exactly 0 were set so by software and do not count; where they outnumber the air, or air is less
    than 1 % of the image, there is nothing to measure. The estimate is the Rayleigh one from the median,
    median / sqrt(2 ln 2), which a few bright voxels do not move. Where ghosts or ringing spoil part of the air, its
    quieter part is used, if that is distributed as noise.
    """
    # Two voxels around the object hold its blur.
    outside = image > 0 if mask is None else (image > 0) & ~_grown(mask, 2)
    n_zero = int((image == 0).sum()) if mask is None else int(((image == 0) & ~mask).sum())
    values = image[outside]
    if values.numel() == 0:
        return None
    limit, previous = _two_class_threshold(image[image > 0]), 0.0
    # The first cut only has to leave most of the air; from there both ends of the range find their place.
    for _ in range(100):
        air = values[values <= limit]
        if air.numel() == 0 or limit == previous:
            break
        previous, limit = limit, 4 * _median(air) / _RAYLEIGH_MEDIAN
    if air.numel() < max(n_zero, 0.01 * image.numel(), 200):
        return None
    whole, ratio = _rayleigh(air)
    if _is_rayleigh(ratio, air.numel()):
        message = f"noise sd {whole:.4g} from {air.numel()} voxels of air"
        return NoiseEstimate(whole, BACKGROUND, air.numel(), message)
    for share in (0.6, 0.4, 0.25):
        quiet = _quiet_part(image, outside & (image <= limit), share)
        if quiet.numel() < 200:
            break
        sd, quiet_ratio = _rayleigh(quiet)
        if _is_rayleigh(quiet_ratio, quiet.numel()):
            message = f"noise sd {sd:.4g} from the quietest {share:.0%} of the air, {quiet.numel()} voxels"
            return NoiseEstimate(sd, BACKGROUND, quiet.numel(), message)
    why = f"their mean is {ratio:.2f} sd, not 1.91 as of Rayleigh noise: ghosts, ringing or a filter"
    message = f"noise sd {whole:.4g} from {air.numel()} voxels of air; {why}"
    return NoiseEstimate(whole, BACKGROUND, air.numel(), message, plausible=False)


def _quiet_part(image: Tensor, air: Tensor, share: float, size: int = 8) -> Tensor:
    """Return the values of the quietest blocks of air: every second voxel chooses the blocks, the others count."""
    window = tuple(slice(0, n - n % size) for n in image.shape)
    shape = [m for n in image.shape for m in (n // size, size)]

    def blocks(x: Tensor) -> Tensor:
        return x[window].reshape(shape).permute(0, 2, 4, 1, 3, 5).reshape(-1, size**3)

    index = torch.arange(size)
    even = ((index[:, None, None] + index[:, None] + index) % 2 == 0).reshape(-1)
    values, usable = blocks(image), blocks(air)
    full = usable.float().mean(1) > 0.75
    values, usable = values[full], usable[full]
    chosen = values[:, even].masked_fill(~usable[:, even], math.nan).nanmedian(1).values
    order = chosen.argsort()[: math.ceil(share * chosen.numel())]
    return values[order][:, ~even][usable[order][:, ~even]]


def _rayleigh(air: Tensor) -> tuple[float, float]:
    """Return the noise sd from the median, and mean over standard deviation."""
    return _median(air) / _RAYLEIGH_MEDIAN, float(air.mean() / air.std().clamp_min(1e-30))


def _is_rayleigh(ratio: float, n_voxels: int) -> bool:
    return abs(ratio * _RAYLEIGH_SD / _RAYLEIGH_MEAN - 1) < max(0.03, 4 / math.sqrt(max(n_voxels, 1)))


def residual_noise(image: Tensor, mask: Tensor) -> NoiseEstimate:
    """Estimate noise inside `mask` (X, Y, Z, bool) from second differences, for images without air.

    Products of the filter (1, -2, 1) along two or three axes remove what is smooth (Immerkaer, CVIU 1996;64:300);
    their median absolute deviation / 0.6745 ignores edges. The smallest of the four estimates counts: anatomy only
    adds. Give a mask of one homogeneous tissue where possible. Noise that is correlated between neighbours (filters,
    interpolation, learned reconstruction) is underestimated; at SNR below 3 the Rician shape biases it downwards.

    Raises:
        BadInputError: a mask without room for the filter.
    """
    found: list[tuple[float, int]] = []
    for axes in ((0, 1, 2), (0, 1), (0, 2), (1, 2)):
        detail, inside = image, mask
        for axis in axes:
            n = image.shape[axis] - 2
            if n < 1:
                break
            low, middle, high = (detail.narrow(axis, s, n) for s in range(3))
            detail = (low - 2 * middle + high) / math.sqrt(6)
            low, middle, high = (inside.narrow(axis, s, n) for s in range(3))
            inside = low & middle & high
        else:
            values = detail[inside]
            if values.numel() >= 50:
                found.append((_median((values - _median(values)).abs()) / 0.6745, values.numel()))
    if not found:
        raise BadInputError(
            f"the noise cannot be estimated from a mask of {int(mask.sum())} voxels; give a larger mask or the noise sd"
        )
    # An estimate from few voxels may be small by chance.
    sd, n_voxels = min(found, key=lambda each: each[0] * (1 + 3 / math.sqrt(each[1])))
    message = f"noise sd {sd:.4g} from second differences in {n_voxels} voxels of the object"
    return NoiseEstimate(sd, RESIDUAL, n_voxels, message)


def estimate_noise(image: Tensor, mask: Tensor, core: Tensor | None = None) -> NoiseEstimate:
    """Estimate noise from the air outside `mask`, else from residuals in `core`.

    Without a core, or where it is too small for the filter, the residuals are those of the whole mask.
    Air that is not distributed as noise is only believed where the residuals are no smaller: ghosts and ringing add to
    the air, anatomy adds to the residuals.
    """
    air = background_noise(image, mask)
    if air is not None and air.plausible:
        return air
    residual = _residual_in(image, mask, core)
    if air is None:
        return replace(residual, message=f"{residual.message} (no usable air)")
    found, other = (air, residual) if air.sd <= residual.sd else (residual, air)
    return replace(found, message=f"{found.message}; not used: {other.message}", plausible=False)


def _residual_in(image: Tensor, mask: Tensor, core: Tensor | None) -> NoiseEstimate:
    if core is not None:
        with suppress(BadInputError):  # too small for the filter
            return residual_noise(image, core)
    return residual_noise(image, mask)


def _grown(mask: Tensor, n_voxels: int) -> Tensor:
    """Return `mask` (X, Y, Z) grown by a cube that reaches `n_voxels` to each side."""
    for axis, n in enumerate(mask.shape):
        grown = mask.clone()
        for step in range(1, min(n_voxels, n - 1) + 1):
            grown.narrow(axis, step, n - step).logical_or_(mask.narrow(axis, 0, n - step))
            grown.narrow(axis, 0, n - step).logical_or_(mask.narrow(axis, step, n - step))
        mask = grown
    return mask


def _median(values: Tensor) -> float:
    return float(values.reshape(-1).median())


def _two_class_threshold(values: Tensor) -> float:
    """Return Otsu's threshold (IEEE SMC 1979;9:62) from a histogram of 256 bins."""
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return math.inf
    counts = torch.histc(values.float(), 256, low, high).double()
    centre = low + (torch.arange(256, dtype=torch.float64, device=counts.device) + 0.5) * (high - low) / 256
    below = counts.cumsum(0)
    total, moment = below[-1], (counts * centre).cumsum(0)
    between = (moment[-1] * below - moment * total).square() / (below * (total - below)).clamp_min(1)
    return float(centre[int(between.argmax())]) + (high - low) / 512
