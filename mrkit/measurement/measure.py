"""The verb `measure`: a scan in; its contrast, noise and sharpness out."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor

from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.noise_estimate import RESIDUAL
from mrcore.notes import Caution
from mrcore.scans import as_scan
from mrcore.segmentation.tissues import Segmenter
from mrkit.anatomy.finding import Notes, find_tissues
from mrkit.anatomy.finding import weighting as weighting_from
from mrkit.anatomy.segmenters import segmenter_named
from mrkit.measurement.measured import Measured
from ulfsim.measurement.contrast import coloured_noise, noise_core, tissue_cores
from ulfsim.measurement.contrast import measure as measure_contrast
from ulfsim.measurement.edge_spread import edge_spread
from ulfsim.measurement.spectrum import NoiseSpectrum, noise_spectrum

_SMOOTH_VOXELS, _SOFT_VOXELS = 1.5, 3.0


def measure(
    volume: Volume,
    *,
    mask: Tensor | None = None,
    tissues: TissueMap | None = None,
    segmenter: Segmenter | None = None,
    weighting: str | None = None,
) -> Measured:
    """Measure a scan of a brain, high-field or ultra-low-field.

    Args:
        volume: magnitude image, with or without its skull.
        mask: brain (bool, X, Y, Z) on its grid; found otherwise.
        tissues: maps on its grid; found otherwise.
        segmenter: what finds them; mrkit's by default.
        weighting: T1w, T2w or FLAIR; by sidecar or name otherwise.

    Raises:
        BadInputError: a scan that cannot be used, a brain or tissues that cannot be found.
        GridMismatchError: mask or tissues on another grid.
    """
    volume, doubts = as_scan(volume)
    weighting = weighting or weighting_from(volume)
    tissues, found = find_tissues(volume, tissues, mask, segmenter or segmenter_named("mrkit", weighting))
    contrast = measure_contrast(volume, tissues, noise=coloured_noise(volume, tissues))
    white = measure_contrast(volume, tissues) if contrast.noise_method == RESIDUAL else contrast
    spectrum, remarks = _spectrum(volume, tissues)
    measured = Measured(
        name=str(volume.meta.get("SourceFile", "scan")),
        weighting=weighting,
        volume=volume,
        tissues=tissues,
        cores=tissue_cores(tissues)[0],
        contrast=contrast,
        white=white,
        spectrum=spectrum,
        edges=edge_spread(volume, tissues.mask),
        notes=(),
    )
    return replace(
        measured, notes=tuple(dict.fromkeys((*doubts, *limits_of(measured), *found, *contrast.notes, *remarks)))
    )


def limits_of(found: Measured) -> list[str]:
    """Return what limits the values, beyond what the estimators say themselves."""
    return [*_contrast_limits(found), *(limit for axis in range(3) for limit in _axis_limits(found, axis))]


def _contrast_limits(found: Measured) -> list[str]:
    limits: list[str] = []
    if found.is_bracketed:
        low, high = found.noise_range
        brightest = max(range(len(found.contrast.names)), key=lambda t: found.contrast.mean[t])
        name = found.contrast.names[brightest]
        few, many = found.contrast.snr[brightest], found.white.snr[brightest]
        text = (
            f"the noise is only bracketed: its sd is {low:.4g} if it is white and {high:.4g} if the colour of the "
            f"residuals is its own and not anatomy's. SNR and CNR are given for the latter; {name} has an SNR of "
            f"{few:.3g} to {many:.3g}, and the 95 % intervals leave that open"
        )
        limits.append(Caution(text, rank=0))
    if found.thin:
        text = f"the core of {' and '.join(found.thin)} is thin: its values hold partial volume and rest on few places"
        limits.append(Caution(text))
    return limits


def _axis_limits(found: Measured, axis: int) -> list[str]:
    limits, letter = [], found.orientation[axis]
    edges, spectrum = found.edges, found.spectrum
    if not math.isfinite(edges.fwhm_mm[axis]):
        limits.append(f"axis {letter}: only {edges.n_edges[axis]} usable edges, too few for a width")
    if edges.fwhm_voxels[axis] > _SOFT_VOXELS:
        limits.append(
            f"axis {letter}: an edge spread of {edges.fwhm_voxels[axis]:.1f} voxels is more than a point "
            "spread makes; the borders there are soft, or lie too close together to be told apart"
        )
    width = spectrum.fwhm_mm[axis] / edges.voxel_mm[axis] if spectrum else 0.0
    if width > _SMOOTH_VOXELS:
        limits.append(
            f"axis {letter}: the noise is that of a kernel {width:.1f} voxels wide: the scan was probably "
            "filtered or interpolated, and its voxels are finer than its detail"
        )
    return limits


def _spectrum(volume: Volume, tissues: TissueMap) -> tuple[NoiseSpectrum | None, Notes]:
    try:
        spectrum = noise_spectrum(volume, tissues.mask, noise_core(tissues))
    except BadInputError as error:
        return None, (str(error),)
    return spectrum, spectrum.notes
