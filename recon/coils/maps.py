"""Coil maps from the data themselves: adaptive combination of low-resolution images, or ESPIRiT of sigpy."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from mrcore.errors import BadInputError, MissingExtraError
from mrcore.operators.fourier import FourierOp
from mrcore.operators.nufft import NufftOp
from recon.rawdata import RawData

_N_BINS = 5  # spans of the train, each with an image of its own: a tissue that vanishes in one shows in another
_RADIUS = 24.0  # cycles over the field of view that the images keep
_NEIGHBOURHOOD_MM = 8.0
_BRIGHT = 0.01  # of the largest energy
_N_CANDIDATES = 200


def coil_maps_from_data(
    raw: RawData, weights: Tensor, radius: float = _RADIUS, neighbourhood_mm: float = _NEIGHBOURHOOD_MM
) -> Tensor:
    """Return coil maps (C, X, Y, Z) of root sum of squares 1, from low-resolution images of spans of the train.

    `weights` (N,) are the density compensation. The map of a voxel is the strongest direction of the coils in its
    neighbourhood, with the phase against one combination of coils that is seen everywhere. Walsh et al., MRM
    2000;43:682.

    Raises:
        BadInputError: no samples within `radius` cycles over the field of view.
    """
    images = low_resolution_images(raw, weights, radius)
    n_coils, shape = images.shape[1], images.shape[2:]
    covariance = torch.stack([(images * images[:, i : i + 1].conj()).sum(0) for i in range(n_coils)], dim=1)
    covariance = _smoothed(covariance.reshape(-1, *shape), raw, neighbourhood_mm)
    covariance = covariance.reshape(n_coils, n_coils, -1).movedim(-1, 0)
    vectors = torch.linalg.eigh(covariance).eigenvectors[..., -1]  # (voxels, coils)
    turn = vectors @ _reference(vectors, images).conj()
    maps = vectors * torch.polar(torch.ones_like(turn.abs()), -turn.angle())[:, None]
    out: Tensor = maps.T.reshape(n_coils, *shape).contiguous()
    return out


def espirit_maps(raw: RawData, weights: Tensor, radius: float = _RADIUS) -> Tensor:
    """Return coil maps (C, X, Y, Z) by sigpy's ESPIRiT, 0 where there is no signal; arguments as above.

    Uecker et al., MRM 2014;71:990.

    Raises:
        MissingExtraError: sigpy is not installed.
    """
    app = _sigpy_app()
    images = low_resolution_images(raw, weights, 2 * radius)
    flat = images.reshape(len(images), -1)
    strongest = torch.linalg.eigh(flat @ flat.mH).eigenvectors[:, -1]  # of all combinations of the spans
    image = torch.tensordot(strongest.conj(), images, dims=1)
    shape = raw.grid.shape
    centred = FourierOp(shape, image.dtype)(image).reshape(raw.n_coils, *(n for n in shape if n > 1))
    width = min(int(2 * radius), *(n for n in shape if n > 1))
    maps = app.EspiritCalib(centred.cpu().numpy(), calib_width=width, show_pbar=False).run()
    return torch.from_numpy(maps).reshape(raw.n_coils, *shape)


def low_resolution_images(raw: RawData, weights: Tensor, radius: float = _RADIUS) -> Tensor:
    """Return images (spans, C, X, Y, Z) of consecutive spans of the train, by density-compensated gridding.

    K-space is weighted by a raised cosine that reaches 0 at `radius` cycles over the field of view.

    Raises:
        BadInputError: weights of another length, or no samples within `radius`.
    """
    trajectory = raw.trajectory
    if tuple(weights.shape) != (raw.n_samples,):
        raise BadInputError(f"weights must be one for each of {raw.n_samples} samples, got {tuple(weights.shape)}")
    cycles = trajectory.k_cyc_per_mm * torch.tensor(raw.grid.fov_mm, dtype=trajectory.k_cyc_per_mm.dtype)
    share = cycles[:, [n > 1 for n in raw.grid.shape]].norm(dim=1) / radius
    window = torch.cos(torch.pi / 2 * share.clamp_max(1)).square() * weights.to(share)
    n_bins = min(_N_BINS, raw.n_frames)
    span = trajectory.frame * n_bins // raw.n_frames
    images = []
    for wanted in range(n_bins):
        chosen = ((span == wanted) & (window > 0)).nonzero()[:, 0]
        if len(chosen):
            dtype, device = raw.samples.dtype, raw.samples.device
            k = trajectory.k_cyc_per_mm[chosen]
            operator = NufftOp(k, raw.grid.shape, raw.grid.spacing_mm, dtype, device)
            images.append(operator.H(raw.samples[:, chosen] * window[chosen].to(device, dtype.to_real())))
    if not images:
        raise BadInputError(f"no samples lie within {radius:g} cycles over the field of view: no coil maps from these")
    return torch.stack(images)


def _reference(vectors: Tensor, images: Tensor) -> Tensor:
    """Return the combination (C,) of coils that is nowhere weak, so that phases against it have no vortices.

    Candidates are the directions (voxels, C) of voxels with signal, evenly drawn.
    """
    energy = images.abs().square().sum((0, 1)).reshape(-1)
    bright = vectors[energy > _BRIGHT * energy.max()]
    candidates = bright[:: max(1, len(bright) // _N_CANDIDATES)]
    weakest = (bright @ candidates.mH).abs().quantile(0.01, dim=0)
    return candidates[int(weakest.argmax())]


def _smoothed(covariance: Tensor, raw: RawData, width_mm: float) -> Tensor:
    """Return the mean over a box of about `width_mm`, odd in voxels, of complex images (n, X, Y, Z)."""
    sizes = [
        min(2 * round(width_mm / step / 2) + 1, n - 1 + n % 2)
        for n, step in zip(raw.grid.shape, raw.grid.spacing_mm, strict=True)
    ]
    parts = torch.view_as_real(covariance).movedim(-1, 1)
    pooled = avg_pool3d(parts, sizes, stride=1, padding=[n // 2 for n in sizes], count_include_pad=False)
    return torch.view_as_complex(pooled.movedim(1, -1).contiguous())


def _sigpy_app() -> Any:  # noqa: ANN401  a library without types
    try:
        return import_module("sigpy.mri.app")
    except ImportError as error:
        raise MissingExtraError("ESPIRiT needs sigpy: pip install 'mrkit[sigpy]'") from error
