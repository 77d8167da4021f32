"""The residual z-map: where an image, imaged again by the declared operator, does not give the scan back.

A missing or an invented structure of some voxels hardly changes the misfit of the whole image; a mean of the residual
over its size, in units of its own sd, shows it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from mrcore.data.brief import Brief
from mrcore.data.grid import Triple
from mrcore.errors import BadInputError
from mrcore.noise import residual_z

WIDTHS_MM = (4.0, 7.0)
"""Full widths at half maximum over which residuals are averaged: small lesions, and larger ones."""
ALARM_Z = 5.0
"""Beyond it a residual counts as a finding: of white noise in a whole head, one map in some tens reaches it."""


@dataclass(frozen=True, eq=False, repr=False)
class ResidualMap(Brief):
    """Local residuals of a scan.

    Attributes:
        z: (x, y, z) on the scan, of the width with the largest magnitude: positive where the scan is brighter than
            the image accounts for (a structure is missing), negative where it is darker (one was added).
        worst: the largest magnitude inside the mask, with its sign.
        voxel: where that is.
        rms: of the unsmoothed residual inside the mask, in units of the noise: 1 of a right image, less of one that
            follows noise; it is blind to single structures.
    """

    z: Tensor
    worst: float
    voxel: tuple[int, int, int]
    rms: float

    @property
    def alarm(self) -> bool:
        """Whether any residual inside the mask is beyond `ALARM_Z`."""
        return abs(self.worst) > ALARM_Z


def residual_map(
    scan: Tensor,
    predicted: Tensor,
    noise_sd: float,
    voxel_mm: Triple,
    mask: Tensor,
    noise_fwhm_voxels: Triple = (0.0, 0.0, 0.0),
) -> ResidualMap:
    """Return local residuals of a magnitude `scan` (x, y, z) about the noise-free `predicted`, inside `mask` (bool).

    `noise_sd` is per real channel. Coloured noise, of `noise_fwhm_voxels` as in `complex_noise`, averages out less.

    Raises:
        BadInputError: shapes that differ, an empty mask, an sd that is not positive.
    """
    if not scan.shape == predicted.shape == mask.shape:
        raise BadInputError(
            f"scan, prediction and mask need one shape, got {tuple(scan.shape)}, {tuple(predicted.shape)} and "
            f"{tuple(mask.shape)}"
        )
    if not bool(mask.any()):
        raise BadInputError("the mask is empty: there is nothing to audit")
    plain = residual_z(scan, predicted, noise_sd)
    inside = mask.numpy()
    # Nothing outside the mask, where the operator is wrong about eyes and scalp, may leak in.
    residual = np.where(inside, plain.double().numpy(), 0.0)
    best = np.zeros(residual.shape)
    for width in WIDTHS_MM:
        sigma = [width / math.sqrt(8 * math.log(2)) / v for v in voxel_mm]
        mean = ndimage.gaussian_filter(residual, sigma, mode="constant")
        z = mean / _sd_of_mean(inside, sigma, noise_fwhm_voxels)
        best = np.where(np.abs(z) > np.abs(best), z, best)
    best = np.where(inside, best, 0.0)
    at = cast("tuple[int, int, int]", tuple(int(i) for i in np.unravel_index(np.abs(best).argmax(), best.shape)))
    rms = float(plain[mask].double().square().mean().sqrt())
    return ResidualMap(torch.from_numpy(best).to(scan.dtype), float(best[at]), at, rms)


def _sd_of_mean(inside: NDArray[np.bool_], sigma: list[float], noise_fwhm_voxels: Triple) -> NDArray[np.float64]:
    """Return the sd of the filtered residual per voxel where noise of sd 1 lies inside the mask only.

    Along one axis the variance is sum_ij k_i k_j r_(i - j), with the filter k and the noise's correlation r, which is
    exp(-d^2 / 4 c^2) for white noise filtered with a Gaussian of sd c. At the border of the mask a part of it is
    missing: that which k^2, a Gaussian narrower by sqrt 2, leaves outside.
    """
    variance = np.ones(3)
    for axis, s in enumerate(sigma):
        n = 2 * math.ceil(4 * s) + 1
        impulse = np.zeros(n)
        impulse[n // 2] = 1.0
        kernel = ndimage.gaussian_filter1d(impulse, s, mode="constant")
        colour = noise_fwhm_voxels[axis] / math.sqrt(8 * math.log(2))
        if colour > 0:
            lag = np.arange(-(n - 1), n)
            correlation = np.exp(-(lag**2) / (4 * colour**2))
            variance[axis] = float((np.correlate(kernel, kernel, "full") * correlation).sum())
        else:
            variance[axis] = float((kernel**2).sum())
    halved = [s / math.sqrt(2) for s in sigma]
    share = ndimage.gaussian_filter(inside.astype(float), halved, mode="constant")
    return cast("NDArray[np.float64]", np.sqrt(np.maximum(share, 1e-3) * variance.prod()))
