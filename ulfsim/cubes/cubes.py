"""Cubes of heads and their low-field scans, drawn without end: the training pairs of restoration networks.

Each batch draws one acquisition, so that its operator, a Kronecker product, is built and decomposed once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from mrcore.data.acquisition import Acquisition, Psf
from mrcore.data.grid import Shape3, Triple
from mrcore.errors import BadInputError
from mrcore.forward import axis_matrix
from mrcore.noise import complex_noise
from mrcore.operators.separable import SeparableOp
from mrcore.random import below, chance, log_uniform, normal, uniform
from mrcore.scan_cubes import ScanCubes
from mrcore.spatial.cropping import cut_box
from ulfsim.cubes.anatomy import LEVEL_QUANTILE, CubeAnatomy
from ulfsim.cubes.contrast import Curve, label_levels, paint, receive_bias, smoothed
from ulfsim.protocols.ranges import SWOOP_LIKE, AcquisitionRange, draw

NARROW = replace(
    SWOOP_LIKE, in_plane_mm=(1.4, 1.9), slice_mm=(4.5, 5.5), psf_voxels=(0.8, 1.2), taper=(0.0, 0.0), wm_snr=(9.0, 70.0)
)
"""Scans about 1.6 x 1.6 x 5 mm."""

WIDE = replace(SWOOP_LIKE, in_plane_mm=(1.1, 2.6), slice_mm=(2.5, 6.5), psf_voxels=(0.5, 1.6), wm_snr=(7.0, 90.0))
"""All that a portable scanner is known to deliver, with console interpolation (a wide point spread in voxels)."""


@dataclass(frozen=True)
class CubeSettings:
    """How cubes are drawn.

    Attributes:
        shape: object voxels of `lattice_mm` on each side, the slice axis last.
        lattice_mm: size of an object voxel; anatomies are taken as if this were their voxel.
        n_cubes: cubes in a batch.
        ranges: acquisitions; each batch takes one of these, each as likely. Of a range, voxel, point spread, WM SNR
            and colour of the noise are used; SNR is that of a signal of 1, see `LEVEL_QUANTILE`.
        misstated: share of batches in which the noise that is stated is wrong by up to 1.5, and the stated blur by
            about 10 %.

    Raises:
        BadInputError: sizes below 1, shares outside 0 to 1, no range.
    """

    shape: Shape3 = (64, 64, 80)
    lattice_mm: float = 1.0
    n_cubes: int = 1
    ranges: tuple[AcquisitionRange, ...] = (NARROW, WIDE)
    misstated: float = 0.4

    def __post_init__(self) -> None:
        if min(*self.shape, self.n_cubes) < 1 or not self.lattice_mm > 0 or not self.ranges:
            raise BadInputError(f"cubes need sizes from 1, a lattice in mm and a range of acquisitions, got {self}")
        if not 0 <= self.misstated <= 1:
            raise BadInputError(f"misstated is a share between 0 and 1, got {self.misstated}")


def draw_cubes(anatomies: Sequence[CubeAnatomy], settings: CubeSettings, generator: torch.Generator) -> ScanCubes:
    """Draw one batch; the same generator gives the same bytes in any process.

    Raises:
        BadInputError: no anatomies.
    """
    if not anatomies:
        raise BadInputError("no anatomies to cut cubes from; give images or label maps")
    shares = torch.tensor([anatomy.weight for anatomy in anatomies])
    chosen = torch.multinomial(shares, settings.n_cubes, replacement=True, generator=generator)
    pairs = [_cube(anatomies[int(n)], settings.shape, generator) for n in chosen]
    truth, brain = (torch.stack([pair[i] for pair in pairs]) for i in (0, 1))
    return _imaged(truth, brain, settings, generator)


def _cube(anatomy: CubeAnatomy, shape: Shape3, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return one object and its brain mask, in a random contrast, turned and mirrored along its axes at random."""
    axes = torch.randperm(3, generator=generator).tolist() if chance(0.3, generator) else [0, 1, 2]
    sides = [shape[axes.index(a)] for a in range(3)]
    about = anatomy.centres[below(len(anatomy.centres), generator)].long()
    centre = (about + torch.randint(-8, 9, (3,), generator=generator)).tolist()
    flips = [axis for axis in range(3) if chance(0.5, generator)]
    values, inside = (
        cut_box(layer[None], centre, sides)[0].permute(axes).flip(flips) for layer in (anatomy.values, anatomy.brain)
    )
    if anatomy.tissues is None:
        image = _recoloured(values.float(), inside, anatomy.sampled.float(), generator)
    else:
        levels = label_levels(anatomy.tissues, generator)
        scale = float(levels[anatomy.sampled.long()].quantile(LEVEL_QUANTILE))
        image = paint(values, levels / max(scale, 0.1), generator)
    if not (anatomy.has_head and chance(0.35, generator)):
        image = image * _outline(inside, generator)
    gain = receive_bias(shape, generator) * math.exp(normal(0.0, 0.12, generator))
    return (image * gain).clamp_(0, 4), inside


def _recoloured(image: Tensor, inside: Tensor, sampled: Tensor, generator: torch.Generator) -> Tensor:
    curve = Curve(generator)
    level = float(curve(sampled).quantile(LEVEL_QUANTILE))
    # Curves may lift what is dark; air stays air.
    present = torch.maximum(inside.float(), (image / 0.1).clamp(0, 1))
    return curve(image) * present / max(level, 0.1)


def _outline(inside: Tensor, generator: torch.Generator) -> Tensor:
    """Return a brain mask as programs deliver it: as it is, a little wider, or soft."""
    mask = inside.float()
    kind = below(4, generator)
    if kind == 2:
        return functional.max_pool3d(mask[None, None], 3, 1, 1)[0, 0]
    return smoothed(mask, uniform(0.6, 1.5, generator)) if kind == 3 else mask


def _imaged(truth: Tensor, brain: Tensor, settings: CubeSettings, generator: torch.Generator) -> ScanCubes:
    """Image a batch (B, X, Y, Z) by one acquisition."""
    ranges = settings.ranges[below(len(settings.ranges), generator)]
    drawn = draw(ranges, int(torch.randint(2**31, (), generator=generator)), "cubes").acquisition
    is_misstated = chance(settings.misstated, generator)
    positions = _positions(settings, drawn.voxel_mm, generator)
    stated = _operator(settings, positions, drawn)
    own = _operator(settings, positions, _misblurred(drawn, generator)) if is_misstated else stated
    n = len(truth)
    low, high = ranges.wm_snr
    sd = torch.tensor([1 / log_uniform(low, high, generator) for _ in range(n)])
    fwhm = cast("Triple", tuple(f / v for f, v in zip(drawn.noise_fwhm_mm, drawn.voxel_mm, strict=True)))
    colour = fwhm if chance(0.4, generator) else (0.0, 0.0, 0.0)
    clean = own(truth)
    noise = complex_noise(tuple(clean.shape), 1.0, generator, colour)
    scale = sd.reshape(-1, 1, 1, 1)
    scan = torch.hypot(clean + scale * noise.real, scale * noise.imag)
    errors = [log_uniform(1 / 1.5, 1.5, generator) if is_misstated else 1.0 for _ in range(n)]
    return ScanCubes(truth, brain, scan, sd * torch.tensor(errors), stated, drawn.voxel_mm, settings.lattice_mm)


def _positions(settings: CubeSettings, voxel_mm: Triple, generator: torch.Generator) -> list[NDArray[np.float64]]:
    """Return where the scan's voxels lie along each axis, in object voxels: over the cube, at a random offset."""
    out: list[NDArray[np.float64]] = []
    for n, voxel in zip(settings.shape, voxel_mm, strict=True):
        step = voxel / settings.lattice_mm
        count = max(1, round(n / step))
        shift = uniform(-0.25, 0.25, generator) * step
        out.append((np.arange(count, dtype=np.float64) - (count - 1) / 2) * step + (n - 1) / 2 + shift)
    return out


def _operator(
    settings: CubeSettings, positions: Sequence[NDArray[np.float64]], acquisition: Acquisition
) -> SeparableOp:
    a, b, c = (
        axis_matrix(n, at, settings.lattice_mm, psf, voxel).float()
        for n, at, psf, voxel in zip(settings.shape, positions, acquisition.psf, acquisition.voxel_mm, strict=True)
    )
    return SeparableOp((a, b, c))


def _misblurred(acquisition: Acquisition, generator: torch.Generator) -> Acquisition:
    wider = [math.exp(normal(0.0, 0.1, generator)) for _ in range(3)]
    psf = (
        replace(axis, gaussian_fwhm_mm=axis.gaussian_fwhm_mm * w)
        for axis, w in zip(acquisition.psf, wider, strict=True)
    )
    return replace(acquisition, psf=cast("Psf", tuple(psf)))
