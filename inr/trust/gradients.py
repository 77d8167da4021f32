"""How strong the edges of a subject are, told from the scan: the width of a prior for what the scan does not show.

Objects of pieces with sharp borders have power spectra that fall with k^-4 (Porod 1951). Under that law the gradient
that a scan shows tells the gradient that the object has; where it has it, the image tells.
"""

from __future__ import annotations

import math

import torch
from scipy import ndimage
from torch import Tensor

from mrcore.data.grid import Triple
from mrcore.errors import BadInputError
from mrcore.operators.linop import LinearOp
from mrcore.random import seeded

LARGEST_MM = 60.0
"""Wavelength above which the spectrum is cut: parts of a head are smaller."""
NEAR_MM = 6.0
"""Sd of the Gaussian neighbourhood in which edges are counted; the finest that a 5 mm slice tells."""
FWHM_TO_SD = 1 / math.sqrt(8 * math.log(2))
LEAST = 0.2
"""Least gradient of a neighbourhood, relative to the root mean square of the image."""


def gradient_sd(
    image: Tensor,
    mask: Tensor,
    spacing_mm: Triple,
    operator: LinearOp,
    scan: Tensor,
    scan_mask: Tensor,
    scan_spacing_mm: Triple,
    noise_sd: float,
) -> Tensor:
    """Return the expected |gradient| per mm (X, Y, Z) of the object, for `inr.trust.null_space.posterior_sd`.

    Its mean square in the `mask` is that of the scan in its plane, without noise, times `sharpening`; its pattern is
    that of the `image` in neighbourhoods of NEAR_MM. `image` and `mask` (bool) are on the operator's lattice, `scan`
    and `scan_mask` (bool) in its range; intensities are relative to WM = 1.

    Raises:
        BadInputError: masks without neighbours, or a scan in which there is nothing but noise.
    """
    plane = in_plane(scan_spacing_mm)
    shown = mean_square(scan, scan_mask, scan_spacing_mm, plane)
    shown -= 2 * noise_sd**2 * sum(1 / scan_spacing_mm[axis] ** 2 for axis in plane)
    if not shown > 0:
        raise BadInputError("the scan shows no edges above its noise: what it does not show cannot be told from it")
    level = shown * sharpening(operator, spacing_mm, scan_spacing_mm)
    local = _near(_square(image, spacing_mm), mask, spacing_mm)
    whole = float(local[mask].mean())
    return (local * (level / whole)).clamp_min(LEAST**2 * level).sqrt()


def sharpening(operator: LinearOp, spacing_mm: Triple, scan_spacing_mm: Triple) -> float:
    """Return the mean square gradient of a field of power k^-4 over that of its scan in the scan's plane, per mm.

    The field is seen as voxels of the lattice would show it: after a Gaussian of a voxel FWHM.
    """
    shape = operator.shape_in
    square = per_voxel = torch.zeros(())
    for axis, spacing in enumerate(spacing_mm):
        k = torch.fft.fftfreq(shape[axis], spacing).square().reshape([-1 if a == axis else 1 for a in range(3)])
        square, per_voxel = square + k, per_voxel + k * spacing**2
    blur = torch.exp(-2 * (math.pi * FWHM_TO_SD) ** 2 * per_voxel)
    amplitude = torch.where(square > LARGEST_MM**-2, blur / square.clamp_min(LARGEST_MM**-2), 0.0)
    drawn = torch.randn(shape, generator=seeded(0, "inr.gradients:sharpening"))
    field = torch.fft.ifftn(torch.fft.fftn(drawn) * amplitude).real.to(operator.device, operator.dtype)
    image = operator(field)
    inner = [tuple(slice(n // 8, n - n // 8) for n in data.shape) for data in (field, image)]
    masks = [torch.zeros_like(data, dtype=torch.bool) for data in (field, image)]
    for mask, window in zip(masks, inner, strict=True):
        mask[window] = True
    object_ = mean_square(field, masks[0], spacing_mm, (0, 1, 2))
    return object_ / mean_square(image, masks[1], scan_spacing_mm, in_plane(scan_spacing_mm))


def in_plane(spacing_mm: Triple) -> tuple[int, ...]:
    """Return the axes whose voxels are at most 1.5 times the smallest."""
    return tuple(axis for axis, spacing in enumerate(spacing_mm) if spacing <= 1.5 * min(spacing_mm))


def mean_square(image: Tensor, mask: Tensor, spacing_mm: Triple, axes: tuple[int, ...]) -> float:
    """Return the mean square of differences of neighbours per mm, both in `mask` (bool), summed over `axes`.

    Raises:
        BadInputError: no neighbours in the mask.
    """
    total = 0.0
    for axis in axes:
        n = image.shape[axis] - 1
        pairs = mask.narrow(axis, 0, n) & mask.narrow(axis, 1, n)
        if not bool(pairs.any()):
            raise BadInputError("the mask holds no two neighbouring voxels, so no gradient can be measured in it")
        total += float((torch.diff(image, dim=axis)[pairs] / spacing_mm[axis]).square().mean())
    return total


def _square(image: Tensor, spacing_mm: Triple) -> Tensor:
    """Return the squared gradient (X, Y, Z) per mm^2: at each voxel the mean of the steps to either side."""
    out = torch.zeros_like(image)
    for axis, spacing in enumerate(spacing_mm):
        step = 0.5 * (torch.diff(image, dim=axis) / spacing).square()
        n = step.shape[axis]
        out.narrow(axis, 0, n).add_(step)
        out.narrow(axis, 1, n).add_(step)
    return out


def _near(values: Tensor, mask: Tensor, spacing_mm: Triple) -> Tensor:
    """Return the mean of `values` over the part of each voxel's neighbourhood that is in `mask`; 0 far from it."""
    inside = mask.to(values)
    total, share = (smoothed(x, spacing_mm, NEAR_MM) for x in (values * inside, inside))
    return torch.where(share > 1e-3, total / share.clamp_min(1e-3), 0.0)


def smoothed(values: Tensor, spacing_mm: Triple, sd_mm: float) -> Tensor:
    """Return `values` (X, Y, Z) after a Gaussian of `sd_mm`."""
    sd = [sd_mm / spacing for spacing in spacing_mm]
    found = ndimage.gaussian_filter(values.cpu().numpy(), sd, mode="constant", truncate=3.0)
    return torch.from_numpy(found).to(values)
