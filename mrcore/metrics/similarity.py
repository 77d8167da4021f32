"""How near an image is to a reference inside a mask. Nothing here rescales an image unless its name says so.

Images are real tensors (X, Y, Z) on one grid; `mask` (X, Y, Z, bool) is the brain. `region`, where there is one, is
the part of the mask that is averaged over: values outside the mask never enter, values between region and mask do.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import structural_similarity
from torch import Tensor

from mrcore.data.grid import Shape3, Triple
from mrcore.errors import BadInputError

SSIM_SIGMA_VOXELS = 1.5
Image = NDArray[np.float32] | NDArray[np.float64]
Box = tuple[slice, slice, slice]


def data_range(reference: Tensor, mask: Tensor) -> float:
    """Return the largest minus the smallest value of the reference inside the mask: the peak of PSNR and SSIM.

    Raises:
        BadInputError: an empty mask, other shapes, complex data, or a reference that is constant in the mask.
    """
    _check(reference, reference, mask)
    values = reference[mask]
    out = float(values.max() - values.min())
    if out <= 0:
        raise BadInputError("the reference is constant inside the mask, so no score is defined; check mask and image")
    return out


def intensity_fit(reference: Tensor, image: Tensor, mask: Tensor) -> tuple[float, float]:
    """Return (scale, offset) of the least-squares fit `reference = scale * image + offset` inside the mask."""
    _check(reference, image, mask)
    x, y = image[mask].double(), reference[mask].double()
    centred = x - x.mean()
    power = float(centred @ centred)
    if power == 0:
        raise BadInputError("the image is constant inside the mask, so its intensity cannot be fitted")
    scale = float(centred @ (y - y.mean())) / power
    return scale, float(y.mean()) - scale * float(x.mean())


def psnr(reference: Tensor, image: Tensor, mask: Tensor, region: Tensor | None = None) -> float:
    """Return 10 log10(R^2 / MSE) in dB; MSE over `region`, R the reference's data range in the mask; inf if equal."""
    _check(reference, image, mask)
    peak = data_range(reference, mask)
    mean_square = _mean_square(image - reference, mask if region is None else region)
    return math.inf if mean_square == 0 else 10 * math.log10(peak**2 / mean_square)


def nrmse(reference: Tensor, image: Tensor, mask: Tensor, region: Tensor | None = None) -> float:
    """Return the RMS difference over `region` relative to the RMS of the reference there."""
    _check(reference, image, mask)
    where = mask if region is None else region
    power = _mean_square(reference, where)
    if power == 0:
        raise BadInputError("the reference is zero inside the mask, so no relative error is defined")
    return math.sqrt(_mean_square(image - reference, where) / power)


def ssim(reference: Tensor, image: Tensor, mask: Tensor, region: Tensor | None = None) -> float:
    """Return the mean 3-D structural similarity over `region` (the whole mask if None).

    Wang et al., IEEE TIP 2004;13:600, with Gaussian windows of 1.5 voxels, K1 .01, K2 .03, population covariance, and
    the data range of the reference inside the mask. Both images are set to 0 outside the mask, so windows that reach
    over its edge see equal backgrounds.
    """
    where = mask if region is None else region
    return float(ssim_map(reference, image, mask)[where].double().mean())


def ssim_map(reference: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Return the structural similarity of every voxel (X, Y, Z), as `ssim` averages it."""
    _check(reference, image, mask)
    peak = data_range(reference, mask)
    zero = torch.zeros((), dtype=reference.dtype)
    radius = int(3.5 * SSIM_SIGMA_VOXELS + 0.5)
    pair = [torch.where(mask, x, zero).numpy() for x in (reference, image.to(reference.dtype))]
    # Background all around gives windows at the edge of the array the same content as anywhere else.
    padded = [np.pad(x, radius) for x in pair]
    _, values = structural_similarity(
        *padded, data_range=peak, gaussian_weights=True, sigma=SSIM_SIGMA_VOXELS, use_sample_covariance=False, full=True
    )
    core = (slice(radius, -radius),) * 3
    return torch.from_numpy(np.ascontiguousarray(values[core]))


def gradient_error(
    reference: Tensor, image: Tensor, mask: Tensor, spacing_mm: Triple, region: Tensor | None = None
) -> float:
    """Return RMS |grad image - grad reference| relative to RMS |grad reference|: 0 equal, 1 for a flat image.

    Gradients are per mm, by central differences along the (orthogonal) voxel axes. Only voxels of `region` count
    whose six neighbours are in the mask, so the step at a stripped skull is no part of it.
    """
    _check(reference, image, mask)
    inner = np.asarray(ndimage.binary_erosion(mask.cpu().numpy()))
    if region is not None:
        inner = inner & region.cpu().numpy()
    if not inner.any():
        raise BadInputError("the mask is too thin for gradients: no voxel has all its neighbours inside")
    where = torch.from_numpy(inner)
    error = _gradient_power(image - reference, where, spacing_mm)
    power = _gradient_power(reference, where, spacing_mm)
    if power == 0:
        raise BadInputError("the reference is flat inside the mask, so no relative gradient error is defined")
    return math.sqrt(error / power)


def mslc(image: Tensor) -> float:
    """Return the mean shifted line correlation; lower is better (ghosts repeat an image half a field of view away).

    After Schuppert et al., Invest Radiol 2022. Variant used here, for 3-D: lines run along axis b at position i of
    axis a; each is correlated (Pearson) with the line at i + n_a // 2, for i below n_a // 2, in every slice of the
    third axis and for all six ordered pairs (a, b) of different axes. Pairs with a constant line (background) are
    left out; the rest are averaged per pair of axes, then over these. nan where every line is constant.
    """
    values = image.detach().cpu().double().numpy()
    means = []
    for shift_axis in range(3):
        half = values.shape[shift_axis] // 2
        if half == 0:
            continue
        moved = np.moveaxis(values, shift_axis, 0)
        for line_axis in (1, 2):
            pairs = _line_correlations(moved[:half], moved[half : 2 * half], line_axis)
            if pairs.size:
                means.append(float(pairs.mean()))
    return float(np.mean(means)) if means else math.nan


def bounding_box(mask: Tensor) -> Box:
    """Return the slices of the smallest block that holds the mask."""
    if not bool(mask.any()):
        raise BadInputError("the mask is empty; give one that covers the brain")
    slices = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        found = torch.nonzero(mask.any(others[1]).any(others[0])).flatten()
        slices.append(slice(int(found[0]), int(found[-1]) + 1))
    return cast("Box", tuple(slices))


def inside(mask: Tensor, spacing_mm: Triple, depth_mm: float = 4.0) -> Tensor:
    """Return the voxels that are more than `depth_mm` from the nearest voxel centre outside the mask."""
    padded = np.pad(mask.cpu().numpy(), 1)
    distance = ndimage.distance_transform_edt(padded, sampling=spacing_mm)
    return torch.from_numpy(np.ascontiguousarray(distance[1:-1, 1:-1, 1:-1] > depth_mm))


def _gradient_power(values: Tensor, where: Tensor, spacing_mm: Triple) -> float:
    """Return the mean squared length of the gradient over `where`, which must not touch the array's border."""
    total = torch.zeros(where.shape, dtype=values.dtype)
    for axis, step in enumerate(spacing_mm):
        n = values.shape[axis]
        difference = (values.narrow(axis, 2, n - 2) - values.narrow(axis, 0, n - 2)) / (2 * step)
        total.narrow(axis, 1, n - 2).add_(difference**2)
    return float(total[where].double().mean())


def _line_correlations(a: NDArray[np.float64], b: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Return Pearson's r of the lines of `a` and `b` along `axis`, without pairs that hold a constant line."""
    varies = (np.ptp(a, axis=axis) > 0) & (np.ptp(b, axis=axis) > 0)
    a = a - a.mean(axis=axis, keepdims=True)
    b = b - b.mean(axis=axis, keepdims=True)
    covariance = (a * b).sum(axis=axis)[varies]
    power = ((a**2).sum(axis=axis) * (b**2).sum(axis=axis))[varies]
    return np.asarray(covariance / np.sqrt(power))


def _mean_square(values: Tensor, mask: Tensor) -> float:
    return float((values[mask].double() ** 2).mean())


def _check(reference: Tensor, image: Tensor, mask: Tensor) -> None:
    shapes: set[Shape3] = {cast("Shape3", tuple(x.shape)) for x in (reference, image, mask)}
    if len(shapes) != 1 or mask.ndim != 3:
        raise BadInputError(
            f"reference, image and mask must be 3-D of one shape, got {tuple(reference.shape)}, {tuple(image.shape)} "
            f"and {tuple(mask.shape)}; resample them onto one grid first"
        )
    if reference.is_complex() or image.is_complex():
        raise BadInputError("scores are defined for real images; pass the magnitude of complex data")
    if mask.dtype != torch.bool:
        raise BadInputError(f"a mask must be boolean, got {mask.dtype}")
    if not bool(mask.any()):
        raise BadInputError("the mask is empty; give one that covers the brain")
