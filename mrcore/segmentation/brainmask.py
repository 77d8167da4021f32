"""Where the brain is: recognise skull-stripped images, find the mask of a brain with or without its skull."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from mrcore.data.grid import Grid, Triple, to_world
from mrcore.data.volume import Volume, require_same_grid
from mrcore.errors import BadInputError
from mrcore.notes import Caution
from mrcore.segmentation.foreground import Bools, largest_part, object_level
from mrcore.segmentation.head_search import SCALES, adult_starts, axis_orders, head_points, head_starts
from mrcore.spatial.registration import Matrix, RegisterSettings, likeliest, register, similarity_at
from mrcore.spatial.resampling import resample

_log = logging.getLogger(__name__)

SMALLEST_SIMILARITY = 0.3
SMALLEST_MARGIN = 0.12
"""Of the similarity, what a flip of the template destroys: an outline hardly changes with it, a brain does. Ten heads
of four contrasts gave 0.14 to 0.36, templates of a wrong size 0.10 to 0.16, a fruit and a phantom up to 0.09."""
CLEAR_MARGIN = 0.18
"""Below, all sizes are compared."""
BEYOND_DOUBT = 0.85
"""Similarity that no outline alone reaches: a symmetric head then passes as well."""
_SETTINGS = RegisterSettings(scale_sd=0.07)
"""Heads of a size vary by 7 %; a weaker prior lets the template grow to the outline of the head."""
LARGEST_BRAIN_L = 2.05
"""Litres: whole brains with their fluid stay below, heads (even of clinical 2-D scans with 12 cm coverage) above."""


@dataclass(frozen=True, eq=False)
class BrainMask:
    """A brain mask (bool, X, Y, Z) and how far to trust it.

    `similarity` is that of the template laid over the head (0 to 1, see `mrcore.spatial.registration`), NaN where no
    template was used; `reliable` is False when the template fits poorly. `cautions` say what else is odd.
    """

    mask: Tensor
    method: str
    similarity: float
    reliable: bool
    message: str
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Foreground:
    """Facts of the object that fills most of the image."""

    volume_l: float
    clean_background: float
    """Share of the voxels outside that are zero."""
    contact: float
    """Largest share of a face of the field of view that the object covers."""


def is_skull_stripped(volume: Volume) -> bool:
    """Return whether the image shows a brain without its head.

    The sidecar's BIDS key `SkullStripped` decides where present. Otherwise the background must be zero, and the object
    no larger than a brain and not cut off by the field of view. A stripped brain over a noisy background is not
    recognised: give its mask.
    """
    stated = volume.meta.get("SkullStripped")
    if isinstance(stated, bool):
        return stated
    facts = _foreground(_magnitude(volume), volume)
    _log.debug("foreground: %s", facts)
    return facts.clean_background >= 0.94 and 0.05 < facts.volume_l <= LARGEST_BRAIN_L and facts.contact < 0.25


def stripped_mask(volume: Volume) -> Tensor:
    """Return the brain voxels (bool, X, Y, Z) of a skull-stripped image.

    They are the largest connected part above 1 % of its median, holes filled: rims of interpolation, small negative
    values and float noise in the background stay out. Over a noisy background the threshold rises above the noise.

    Raises:
        BadInputError: no part of the image stands out of the background.
    """
    data = _magnitude(volume)
    level = 0.01 * float(np.median(data[data > object_level(data)]))
    # A brain fills at most half of a box: with a clean background far more voxels than this are below the level.
    if float((data <= level).mean()) < 0.25:
        level = _above_noise(data)
    mask = largest_part(data > level)
    if int(mask.sum()) < 1000:
        raise BadInputError("no brain stands out of the background of this image; give its mask with --mask")
    return torch.from_numpy(ndimage.binary_fill_holes(mask))


def _magnitude(volume: Volume) -> NDArray[np.float32]:
    if volume.data.is_complex():
        raise BadInputError("a brain mask needs a magnitude image, got complex data; take its magnitude first")
    data: NDArray[np.float32] = volume.data.cpu().numpy()
    if float(data.max()) <= float(data.min()):
        raise BadInputError("the image is constant: there is no brain in it")
    return data


def _foreground(data: NDArray[np.float32], volume: Volume) -> _Foreground:
    inside = ndimage.binary_fill_holes(largest_part(data > object_level(data)))
    voxel_l = float(np.prod(volume.grid.spacing_mm)) / 1e6
    tiny = 1e-3 * float(np.median(data[inside]))
    outside = ~inside
    clean = float((np.abs(data[outside]) <= tiny).mean()) if outside.any() else 0.0
    faces = [inside.take(end, axis) for axis in range(3) for end in (0, -1)]
    return _Foreground(float(inside.sum()) * voxel_l, clean, max(float(face.mean()) for face in faces))


def _above_noise(data: NDArray[np.float32]) -> float:
    """Return the level that Rayleigh noise of the background hardly exceeds (mean + 5 sd of the dark half's mode)."""
    dark = data[data < object_level(data)]
    return float(np.median(dark) + 5 * 0.6551 / 1.1774 * np.median(dark)) if dark.size else 0.0


def require_reliable(brain: BrainMask) -> BrainMask:
    """Return `brain`, or raise when it cannot be trusted.

    Raises:
        BadInputError: the mask is not reliable; the message says why and what to do.
    """
    if not brain.reliable:
        other = "template" if brain.method == "deepbet" else "deepbet"
        raise BadInputError(
            f"{brain.message}; give a brain mask with --mask, or a skull-stripped image, or try --masker {other}"
        )
    return brain


def template_brain_mask(head: Volume, template: Volume, template_mask: Volume) -> BrainMask:
    """Find the brain of a head by laying a template's mask over it, then following the intensities at its border.

    `template` is a brain image and `template_mask` its mask (0 to 1, same grid), such as those of ICBM-152. The head
    may be that of an adult or a child, turned by up to 35 degrees from where its affine says; where it fits nowhere
    there, all orders of the axes are tried, and a caution says so if one fits. The border is refined by up to 5 mm
    where voxels are at most 2.5 mm; larger voxels keep the template's border. Check `reliable`, or pass the result
    through `require_reliable`.

    Raises:
        BadInputError: an image that is complex or constant, or a template mask that is empty.
        GridMismatchError: template and mask on different grids.
    """
    require_same_grid(template.grid, template_mask.grid, "the template and its mask")
    _magnitude(head)
    brain = template_mask.data > 0.5
    if not bool(brain.any()):
        raise BadInputError("the template's mask is empty; there is nothing to lay over the head")
    centre = to_world(template.grid, np.argwhere(brain.numpy())).mean(0)
    fit = _fit_somewhere(head, template, brain, centre)
    moved = Volume(
        template_mask.data.float(), Grid(template.grid.shape, np.linalg.inv(fit.motion) @ template.grid.affine)
    )
    mask = resample(moved, head.grid, order=1).data.numpy() > 0.5
    method = "template registration"
    if mask.any() and max(head.grid.spacing_mm) <= 2.5:
        mask = _refined(head.data.numpy(), mask, head.grid.spacing_mm)
        method += ", border refined"
    reliable = fit.reliable and bool(mask.any())
    message = (
        f"the brain template {'fits' if reliable else 'does not fit'} this image: similarity {fit.similarity:.2f} "
        f"(at least {SMALLEST_SIMILARITY} expected), of which {fit.margin:.2f} is lost when the template is flipped "
        f"(at least {SMALLEST_MARGIN} expected)"
    )
    cautions = _axes_cautions(head.grid, fit.motion) if reliable else ()
    return BrainMask(torch.from_numpy(mask), method, fit.similarity, reliable, message, cautions)


@dataclass(frozen=True, eq=False)
class _Fit:
    """The template laid over a head: motion from head to template, similarity, and what of it a flip keeps."""

    motion: Matrix
    similarity: float
    flipped: float

    @property
    def margin(self) -> float:
        """Similarity that a flip destroys: of the brain's structure, not of its outline."""
        return self.similarity * (1 - self.flipped)

    @property
    def reliable(self) -> bool:
        """Whether this is a brain rather than an outline."""
        if self.similarity < SMALLEST_SIMILARITY:
            return False
        return self.margin >= SMALLEST_MARGIN or self.similarity >= BEYOND_DOUBT


def _fit_somewhere(head: Volume, template: Volume, brain: Tensor, centre_mm: NDArray[np.float64]) -> _Fit:
    """Lay the template over an adult's head that is nearly straight; unless it fits well, search further."""
    points, ring = head_points(head), _ring(brain, template)
    straight = register(head, template, _SETTINGS, fixed_mask=ring, starts=adult_starts(points, centre_mm))
    fits = [_fit_at(straight.motion, head, template, brain, _SETTINGS)]
    if fits[0].margin >= CLEAR_MARGIN:
        return fits[0]
    starts = [head_starts(points, centre_mm, scale) for scale in SCALES]
    fits.append(_searched(head, template, brain, starts))
    if not any(fit.reliable for fit in fits):
        orders = axis_orders()
        turned = [
            [s for axes in orders for s in head_starts(points, centre_mm, scale, axes=axes, tilted=False)]
            for scale in SCALES
        ]
        likely = max(_coarse(head, template, brain, turned), key=lambda fit: fit.margin).motion
        axes = max(orders, key=lambda order: float(np.trace(order[:3, :3].T @ likely[:3, :3])))
        starts = [head_starts(points, centre_mm, scale, axes=axes) for scale in SCALES]
        fits.append(_searched(head, template, brain, starts))
    return max(fits, key=lambda fit: (fit.reliable, fit.margin))


def _searched(head: Volume, template: Volume, brain: Tensor, starts: list[list[Matrix]]) -> _Fit:
    """Return the best fit of all sizes: coarsely they are hard to tell apart where voxels are large."""
    fine = replace(_SETTINGS, levels_mm=_SETTINGS.levels_mm[-1:], n_steps=40)
    ring, fits = _ring(brain, template), []
    for coarse in _coarse(head, template, brain, starts):
        found = register(head, template, fine, fixed_mask=ring, starts=[coarse.motion])
        fits.append(_fit_at(found.motion, head, template, brain, _SETTINGS))
    return max(fits, key=lambda fit: fit.margin)


def _coarse(head: Volume, template: Volume, brain: Tensor, starts: list[list[Matrix]]) -> list[_Fit]:
    """Return for each size the fit of largest margin after a coarse registration from its likeliest starts.

    The similarity alone would take an outline at times: at 8 mm it has little to lose.
    """
    settings = replace(_SETTINGS, levels_mm=_SETTINGS.levels_mm[:1], n_steps=30)
    ring, found = _ring(brain, template), []
    for group in starts:
        likely = likeliest(head, template, settings, group, fixed_mask=ring)
        tried = [register(head, template, settings, fixed_mask=ring, starts=[start]).motion for start in likely]
        fits = [_fit_at(motion, head, template, brain, settings) for motion in tried]
        found.append(max(fits, key=lambda fit: fit.margin))
    return found


def _fit_at(motion: Matrix, head: Volume, template: Volume, brain: Tensor, settings: RegisterSettings) -> _Fit:
    """Compare the template that lies over a head with itself flipped there."""
    similarity = similarity_at(motion, head, template, settings, brain)
    centre = to_world(template.grid, np.argwhere(brain.numpy())).mean(0)
    flips = [_flip(axes, centre) for axes in ((1.0, -1.0, 1.0), (1.0, 1.0, -1.0), (1.0, -1.0, -1.0))]
    flipped = max(similarity_at(flip @ motion, head, template, settings, brain) for flip in flips)
    return _Fit(motion, similarity, flipped / max(similarity, 1e-6))


def _ring(brain: Tensor, template: Volume) -> Tensor:
    """Return a brain mask with 4 mm around it: the skull is there, or nothing."""
    n_steps = max(1, round(4 / template.grid.spacing_mm[0]))
    return torch.from_numpy(ndimage.binary_dilation(brain.numpy(), iterations=n_steps))


def _axes_cautions(grid: Grid, motion: Matrix) -> tuple[str, ...]:
    """Return a caution where the head lies along other world axes than the header says."""
    right = np.array_equal(nib.orientations.io_orientation(motion), [[0, 1], [1, 1], [2, 1]])
    if right:
        return ()
    lies = "".join(nib.aff2axcodes(motion @ grid.affine))
    text = (
        f"the header gives the voxel axes as {grid.orientation}, but the head lies as if they were {lies} or its "
        "mirror image: the brain mask holds, directions and left and right may be wrong; check the header"
    )
    return (Caution(text, 0),)


def _refined(data: NDArray[np.float32], mask: Bools, spacing_mm: Triple) -> Bools:
    """Follow the intensities at the border of a mask: open tissue-like voxels, keep what hangs on the core, close."""
    margin = [int(np.ceil(12.0 / s)) for s in spacing_mm]
    hits = [np.flatnonzero(mask.any(axis=tuple(b for b in range(3) if b != a))) for a in range(3)]
    window = tuple(slice(max(0, int(h[0]) - m), int(h[-1]) + m + 1) for h, m in zip(hits, margin, strict=True))
    block, start = data[window], mask[window]
    depth = _distance(start, spacing_mm) - _distance(~start, spacing_mm)
    core = depth > 5.0
    if not core.any():
        return mask
    low, high = 0.5 * float(np.median(block[core])), 1.3 * float(np.percentile(block[core], 95))
    tissue = (depth > -5.0) & (block > low) & (block < high)
    eroded = _distance(tissue, spacing_mm) > 2.5
    labels, _ = ndimage.label(eroded | core)
    kept = (labels == np.bincount(labels[core]).argmax()) & eroded
    grown = (_distance(~kept, spacing_mm) <= 2.5) & tissue | (depth > 6.0)
    padded = np.pad(grown, [(m, m) for m in margin])
    closed = _distance(_distance(~padded, spacing_mm) <= 6.0, spacing_mm) > 6.0
    inner = tuple(slice(m, n - m) for m, n in zip(margin, padded.shape, strict=True))
    out = np.zeros_like(mask)
    out[window] = ndimage.binary_fill_holes(largest_part(closed[inner] & (depth > -5.0)))
    return out


def _distance(inside: Bools, spacing_mm: Triple) -> NDArray[np.float32]:
    """Return the distance in mm of each voxel inside to the nearest outside."""
    return np.asarray(ndimage.distance_transform_edt(inside, sampling=spacing_mm), np.float32)


def _flip(signs: Triple, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.diag([*signs, 1.0])
    out[:3, 3] = centre - out[:3, :3] @ centre
    return out
