"""Plain degradations of a high-field image: what a simulator must beat to be worth its trouble.

None changes the contrast between tissues. They are given what helps them: the voxels of the real scan, a true Gaussian
in mm along its axes, and, where asked for, as much noise as the real scan has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from mrcore.data.acquisition import AxisPsf, Psf
from mrcore.data.grid import Grid, Shape3, Triple, directions, grid_about, with_spacing
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator
from mrcore.noise import add_noise
from mrcore.random import seeded
from mrcore.spatial.resampling import resample
from ulfsim.plan import scan_axes, slice_axis_of


@dataclass(frozen=True)
class TorchioSettings:
    """Parameters of a TorchIO-style degradation: the middle of the ranges that its transforms draw from by default.

    Attributes:
        blur_sd_mm: RandomBlur, standard deviation in mm, U(0, 2) per axis.
        noise_sd: RandomNoise, U(0, 0.25), in units of the foreground's standard deviation: it is meant for images
            that were z-normalised over their foreground.
        bias: RandomBiasField, range (-bias, bias) of the coefficients of a cubic polynomial in exp(); 0.5 in TorchIO,
            0 for none.

    RandomAnisotropy's factor, U(1.5, 5) with nearest neighbours, is not drawn: it is what the scan's voxels ask for.
    Source: TorchIO, random_{blur,noise,anisotropy,bias_field}.py (Perez-Garcia et al., CMPB 2021;208:106236).
    """

    blur_sd_mm: float = 1.0
    noise_sd: float = 0.125
    bias: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 <= value < math.inf for value in (self.blur_sd_mm, self.noise_sd, self.bias)):
            raise BadInputError(f"blur, noise and bias must be finite and not negative, got {self}")


TORCHIO_MIDDLE = TorchioSettings()


def scan_grid_like(source: Grid, scan: Grid) -> Grid:
    """Return the grid that a scan with the voxels of `scan` has when it is laid over `source`."""
    slice_axis = slice_axis_of(scan)
    voxel_mm = cast("Triple", tuple(scan.spacing_mm[a] for a in scan_axes(scan, slice_axis)))
    order = scan_axes(source, slice_axis)
    shape = cast("Shape3", tuple(source.shape[a] for a in order))
    return with_spacing(Grid(shape, source.affine[:, [*order, 3]]), voxel_mm)


def gaussian_blur_degradation(source: Volume, scan_grid: Grid, fwhm_mm: Triple | None = None) -> Volume:
    """Return `source` blurred by a Gaussian and sampled on `scan_grid`; contrast and noise are left as they come.

    `fwhm_mm` runs along the axes of `scan_grid`; by default it is one of its voxels. The blur baseline of the study of
    OpenNeuro ds006557 is a Gaussian as well, of a fixed width in voxels. Where the source is sharper than the Gaussian
    this is the exact convolution: nothing is cut off in k-space.

    Raises:
        BadInputError: complex data, a width that is negative, or grids that do not overlap.
    """
    _require_magnitude(source)
    widths = scan_grid.spacing_mm if fwhm_mm is None else fwhm_mm
    psf = cast("Psf", tuple(AxisPsf(gaussian_fwhm_mm=w, truncate=False) for w in widths))
    operator = imaging_operator(source.grid, scan_grid, psf, source.data.dtype)
    return Volume(operator(source.data).clamp_min(0), scan_grid, source.meta)


def with_noise_of(scan: Volume, noise_sd: float, seed: int) -> Volume:
    """Return the magnitude of `scan` plus complex white noise of `noise_sd` per real channel: the blur's best case."""
    noisy = add_noise(scan.data, noise_sd, seeded(seed, "ulfsim.degrade:noise"))
    return Volume(noisy, scan.grid, scan.meta)


def scaled_to_mean(scan: Volume, mask: Tensor, mean: float) -> Volume:
    """Return `scan` times the factor that gives it this `mean` inside `mask` (bool, X, Y, Z)."""
    now = float(scan.data[mask].double().mean()) if bool(mask.any()) else 0.0
    if now <= 0:
        raise BadInputError("the image has no positive mean inside the mask, so it cannot be scaled to one")
    return Volume(scan.data * (mean / now), scan.grid, scan.meta)


def torchio_style_degradation(
    source: Volume, scan_grid: Grid, seed: int, settings: TorchioSettings = TORCHIO_MIDDLE
) -> Volume:
    """Return `source` after blur, anisotropic resampling, real Gaussian noise and, optionally, a bias field.

    The thickest axis of `scan_grid` is sampled with nearest neighbours, as RandomAnisotropy does, the others linearly.
    The noise is not Rician: the background has negative values.

    Raises:
        BadInputError: complex data, or an image without a foreground.
    """
    _require_magnitude(source)
    fwhm_mm = settings.blur_sd_mm * math.sqrt(8 * math.log(2))
    psf: Psf = (AxisPsf(gaussian_fwhm_mm=fwhm_mm, truncate=False),) * 3
    blurred = Volume(imaging_operator(source.grid, source.grid, psf, source.data.dtype)(source.data), source.grid)
    scan = resample(_nearest_slices(blurred, scan_grid), scan_grid, order=1)
    data = scan.data * _bias_field(scan_grid, settings.bias, seed).to(scan.data.dtype)
    # TorchIO's foreground of a z-normalisation is what lies above the mean.
    foreground = data[data > data.mean()]
    if foreground.numel() < 2:
        raise BadInputError("the image has no foreground, so no noise can be set relative to it")
    draw = torch.randn(data.shape, generator=seeded(seed, "ulfsim.degrade:torchio"), dtype=data.dtype)
    return Volume(data + settings.noise_sd * float(foreground.std()) * draw, scan_grid, source.meta)


def _nearest_slices(volume: Volume, scan_grid: Grid) -> Volume:
    """Return the nearest voxels of `volume` along the thickest axis of `scan_grid`, as fine as they were elsewhere."""
    thick = max(range(3), key=lambda a: (round(scan_grid.spacing_mm[a], 3), a))
    fine = min(volume.grid.spacing_mm)
    spacing = cast("Triple", tuple(s if a == thick else fine for a, s in enumerate(scan_grid.spacing_mm)))
    # One voxel more on each side, so that the linear interpolation onto the scan finds neighbours.
    shape = cast(
        "Shape3",
        tuple(n if a == thick else math.ceil(scan_grid.fov_mm[a] / fine) + 2 for a, n in enumerate(scan_grid.shape)),
    )
    return resample(volume, grid_about(scan_grid.origin_mm, directions(scan_grid), spacing, shape), order=0)


def _bias_field(grid: Grid, size: float, seed: int, order: int = 3) -> Tensor:
    """Return exp of a polynomial of `order` over [-1, 1]^3 (X, Y, Z) with coefficients from U(-size, size)."""
    if size == 0:
        return torch.ones(grid.shape)
    x, y, z = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in grid.shape), indexing="ij")
    powers = [(i, j, k) for i in range(order + 1) for j in range(order + 1 - i) for k in range(order + 1 - i - j)]
    draw = size * (2 * torch.rand(len(powers), generator=seeded(seed, "ulfsim.degrade:bias")) - 1)
    total = torch.zeros(grid.shape)
    for (i, j, k), coefficient in zip(powers, draw, strict=True):
        total += coefficient * x**i * y**j * z**k
    return total.exp()


def _require_magnitude(source: Volume) -> None:
    if source.data.is_complex():
        raise BadInputError("a degradation starts from a magnitude image; take the magnitude of this complex volume")
