"""Training pairs of the denoiser: patches of many contrasts from images, relaxation maps and label maps, with noise.

An `Anatomy` is layers of one head (an image; T1, T2 and PD; labels) and a way to draw a contrast of them. Every
contrast is a function of one voxel, so that it is drawn first and computed on patches only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from mrcore.data.grid import Grid
from mrcore.denoisers.unet import DenoiserNet
from mrcore.errors import BadInputError
from mrcore.random import below, chance, log_uniform, seeded, uniform
from mrcore.signals.steady_state import inversion_recovery, spin_echo, spoiled_gre
from mrcore.spatial.cropping import cut_box

Contrast = Callable[[Tensor], Tensor]
"""From layers (C, ...) to an image (...)."""

_N_SAMPLED = 40_000
_RICIAN_FROM, _RICIAN_SHARE = 0.06, 0.3
_WEAK_NOISE = 0.03


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Layers (C, X, Y, Z) of one head and how contrasts of them are drawn.

    `planes` are the axes across which slices can be taken: thick slices have one. 3-D patches need all three. Patches
    are centred on `centres` (n, 3), voxels inside the head; `sampled` (C, n) are voxels that stand for all of them.
    `is_sharp`: voxels hold one tissue each, so that patches are smoothed at random. `weight` is the relative share of
    patches.
    """

    name: str
    layers: Tensor
    draw_contrast: Callable[[torch.Generator], Contrast]
    planes: tuple[int, ...]
    centres: Tensor
    sampled: Tensor
    is_sharp: bool = False
    weight: float = 1.0


@dataclass(frozen=True)
class PatchSettings:
    """How patches are drawn: `size` voxels on each of `n_dims` sides, `n_patches` a batch.

    The sd of the noise is uniform over `noise_range`, relative to the 99th percentile of the whole image.

    Raises:
        BadInputError: sizes below 1, or a range of noise that is none.
    """

    n_dims: int
    size: int
    n_patches: int
    noise_range: tuple[float, float] = (0.005, 0.15)

    def __post_init__(self) -> None:
        if self.n_dims not in (2, 3) or min(self.size, self.n_patches) < 1:
            raise BadInputError(f"patches have 2 or 3 dimensions and at least one voxel, got {self}")
        if not 0 <= self.noise_range[0] < self.noise_range[1] < math.inf:
            raise BadInputError(f"the noise needs a range of sd from 0, got {self.noise_range}")


@dataclass(frozen=True, eq=False)
class NoisyPatches:
    """Patches (B, X, Y[, Z]) without and with noise of sd `sigma` (B,), where 1 is the 99th percentile of an image."""

    clean: Tensor
    noisy: Tensor
    sigma: Tensor = field(repr=False)


def image_anatomy(name: str, data: Tensor, grid: Grid) -> Anatomy:
    """Return the anatomy of a weighted image (X, Y, Z); contrasts are powers of it, some of them inverted."""
    scale = _percentile(data)
    if scale <= 0:
        raise BadInputError(f"{name}: more than 99 % of the voxels are 0; crop the image to the head first")
    relative = (data / scale).clamp_min(0).float()
    return _anatomy(name, relative[None], relative > 0.1, _image_contrast, planes_of(grid), weight=2.0)


def maps_anatomy(name: str, t1_s: Tensor, t2_s: Tensor, pd: Tensor, planes: tuple[int, ...]) -> Anatomy:
    """Return the anatomy of relaxation maps (X, Y, Z); contrasts are spin, inversion and gradient echoes."""
    layers = torch.stack([t1_s, t2_s, pd]).float()
    if not bool(torch.isfinite(layers).all()) or not float(pd.max()) > 0:
        raise BadInputError(f"{name}: T1, T2 and PD must be finite, and PD positive somewhere")
    # What is measured where there is no signal is noise, and must not be learnt as an image.
    inside = (layers[2] > 0.05 * _percentile(layers[2])) & (layers[:2].amin(0) > 0)
    layers[2] *= inside
    return _anatomy(name, layers, inside, _sequence_contrast, planes)


def label_anatomy(name: str, labels: Tensor, grid: Grid) -> Anatomy:
    """Return the anatomy of a label map (X, Y, Z); contrasts give each label an intensity at random, 0 mostly none.

    Billot et al., Med Image Anal 2023;86:102789.
    """
    codes, index = torch.unique(labels, return_inverse=True)
    if not 2 <= len(codes) <= 5000:
        raise BadInputError(f"{name} holds {len(codes)} different values; a label map has some tens")

    def draw(generator: torch.Generator) -> Contrast:
        values = torch.rand(len(codes), generator=generator)
        if chance(0.8, generator):
            values[codes == 0] = 0.0
        return lambda layers: values[layers[0].long()]

    return _anatomy(name, index.float()[None], labels != 0, draw, planes_of(grid), is_sharp=True)


def planes_of(grid: Grid) -> tuple[int, ...]:
    """Return the axes across which slices have voxels that are about square."""
    spacing = grid.spacing_mm
    others = [[s for axis, s in enumerate(spacing) if axis != across] for across in range(3)]
    return tuple(axis for axis, pair in enumerate(others) if max(pair) < 1.5 * min(pair))


def draw_patches(anatomies: Sequence[Anatomy], settings: PatchSettings, generator: torch.Generator) -> NoisyPatches:
    """Draw one batch.

    Noise is Gaussian; of the patches with strong noise some are Rician magnitudes.

    Raises:
        BadInputError: no anatomy that serves these dimensions.
    """
    usable = [a for a in anatomies if len(a.planes) == 3 or (settings.n_dims == 2 and a.planes)]
    if not usable:
        raise BadInputError(
            f"none of the {len(anatomies)} training images has voxels fit for {settings.n_dims}-D patches"
        )
    shares = torch.tensor([anatomy.weight for anatomy in usable])
    chosen = torch.multinomial(shares, settings.n_patches, replacement=True, generator=generator)
    clean = torch.stack([_patch(usable[int(n)], settings, generator) for n in chosen])
    low, high = settings.noise_range
    sigma = low + (high - low) * torch.rand(settings.n_patches, generator=generator)
    noise = torch.randn((2, *clean.shape), generator=generator) * sigma.reshape(-1, *[1] * settings.n_dims)
    is_rician = (torch.rand(settings.n_patches, generator=generator) < _RICIAN_SHARE) & (sigma > _RICIAN_FROM)
    gaussian = clean + noise[0]
    magnitude = torch.hypot(gaussian, noise[1])
    noisy = torch.where(is_rician.reshape(-1, *[1] * settings.n_dims), magnitude, gaussian)
    return NoisyPatches(clean, noisy, sigma)


def denoising_loss(net: DenoiserNet, patches: NoisyPatches) -> Tensor:
    """Return the mean absolute error in units of the noise, so that weak and strong noise count alike.

    Noise so weak that the images' own exceeds it counts less.
    """
    estimate: Tensor = net(patches.noisy, patches.sigma)
    unit = patches.sigma.clamp_min(_WEAK_NOISE).reshape(-1, *[1] * (estimate.ndim - 1))
    return ((estimate - patches.clean).abs() / unit).mean()


def _anatomy(
    name: str,
    layers: Tensor,
    inside: Tensor,
    draw: Callable[[torch.Generator], Contrast],
    planes: tuple[int, ...],
    *,
    is_sharp: bool = False,
    weight: float = 1.0,
) -> Anatomy:
    generator = seeded(0, f"mrcore.denoiser_data:{name}")
    centres = inside.nonzero()
    if not len(centres):
        raise BadInputError(f"{name}: nothing but background; is this a head?")
    centres = centres[torch.randint(len(centres), (_N_SAMPLED,), generator=generator)]
    voxels = layers.reshape(len(layers), -1)
    sampled = voxels[:, torch.randint(voxels.shape[1], (_N_SAMPLED,), generator=generator)]
    return Anatomy(name, layers, draw, planes, centres, sampled, is_sharp, weight)


def _patch(anatomy: Anatomy, settings: PatchSettings, generator: torch.Generator) -> Tensor:
    """Return one patch (X, Y[, Z]) of a contrast whose 99th percentile over the whole head is 1."""
    zoom = uniform(1.0, 1.6, generator) if chance(0.5, generator) else 1.0
    sides = [math.ceil(zoom * settings.size)] * 3
    if settings.n_dims == 2:
        across = anatomy.planes[below(len(anatomy.planes), generator)]
        sides[across] = 1
    layers = cut_box(anatomy.layers, anatomy.centres[below(len(anatomy.centres), generator)].tolist(), sides)
    contrast = anatomy.draw_contrast(generator)
    image = contrast(layers) / max(_percentile(contrast(anatomy.sampled)), 1e-6)
    if settings.n_dims == 2:
        image = image.squeeze(across)
    axes = torch.randperm(image.ndim, generator=generator).tolist()
    image = image.permute(axes).flip([axis for axis in range(image.ndim) if chance(0.5, generator)])
    if anatomy.is_sharp:
        image = _smoothed(image, uniform(0.0, 0.33, generator))
    if zoom > 1:
        image = _resized(image, settings.size)
    return image * _gain(image, generator)


def _image_contrast(generator: torch.Generator) -> Contrast:
    power = math.exp(uniform(-0.5, 0.5, generator))
    inverted = chance(0.2, generator)

    def contrast(layers: Tensor) -> Tensor:
        image = layers[0].pow(power)
        return torch.where(image > 0.1, (1.1 - image).clamp_min(0), image) if inverted else image

    return contrast


def _sequence_contrast(generator: torch.Generator) -> Contrast:
    """Draw times and angles so that T1w, T2w, PDw, FLAIR, STIR and MPRAGE-like images all occur."""
    kind, te_s = below(3, generator), log_uniform(0.005, 0.15, generator)
    tr_s, flip_deg = log_uniform(0.2, 6.0, generator), uniform(5.0, 60.0, generator)
    ti_s = log_uniform(0.15, 3.0, generator)

    def contrast(layers: Tensor) -> Tensor:
        t1_s, t2_s = layers[:2].clamp_min(1e-3)
        if kind == 0:
            return spin_echo(layers[2], t1_s, t2_s, tr_s, te_s)
        if kind == 1:
            return inversion_recovery(layers[2], t1_s, t2_s, 2.0 * ti_s + tr_s, te_s, ti_s)
        return spoiled_gre(layers[2], t1_s, t2_s, 0.01 * tr_s + 0.005, 0.003, flip_deg)

    return contrast


def _gain(image: Tensor, generator: torch.Generator) -> Tensor:
    """Return a smooth receive profile around 1."""
    coarse = 1 + 0.15 * torch.randn([3] * image.ndim, generator=generator)
    return _interpolated(coarse, list(image.shape)).clamp(0.5, 1.5)


def _smoothed(image: Tensor, share: float) -> Tensor:
    """Return the image where each voxel gives `share` to either neighbour along each axis in turn."""
    for axis in range(image.ndim):
        n = image.shape[axis]
        low, high = torch.arange(-1, n - 1).clamp_min(0), torch.arange(1, n + 1).clamp_max(n - 1)
        image = (1 - 2 * share) * image + share * (image.index_select(axis, low) + image.index_select(axis, high))
    return image


def _resized(image: Tensor, size: int) -> Tensor:
    return _interpolated(image, [size] * image.ndim)


def _interpolated(image: Tensor, shape: list[int]) -> Tensor:
    mode = "bilinear" if image.ndim == 2 else "trilinear"
    return functional.interpolate(image[None, None], shape, mode=mode, align_corners=False)[0, 0]


def _percentile(values: Tensor) -> float:
    flat = values.reshape(-1)[:: max(1, values.numel() // 2_000_000)].numpy()
    return float(np.percentile(flat, 99))
