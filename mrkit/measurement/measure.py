"""The verb `measure`: a scan in; its contrast, noise and sharpness out."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor

from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.notes import Caution
from mrcore.scans import as_scan
from mrcore.segmentation.tissues import Segmenter
from mrkit.anatomy.finding import Notes, find_tissues
from mrkit.anatomy.finding import weighting as weighting_from
from mrkit.anatomy.segmenters import segmenter_named
from mrkit.measurement.measured import Measured
from ulfsim.measurement.contrast import measure as measure_contrast
from ulfsim.measurement.contrast import tissue_cores
from ulfsim.measurement.edge_spread import edge_spread
from ulfsim.measurement.mixing import with_mixing
from ulfsim.measurement.noise import noise_core, scan_noise
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
    are_given = tissues is not None
    tissues, found = find_tissues(volume, tissues, mask, segmenter or segmenter_named("mrkit", weighting))
    noise = scan_noise(volume, tissues.mask, noise_core(tissues))
    contrast = measure_contrast(volume, tissues, noise=noise)
    if not are_given:
        contrast = with_mixing(contrast, tissues)
    spectrum, remarks = _spectrum(volume, tissues)
    measured = Measured(
        name=str(volume.meta.get("SourceFile", "scan")),
        weighting=weighting,
        volume=volume,
        tissues=tissues,
        cores=tissue_cores(tissues)[0],
        contrast=contrast,
        acquired_mm=noise.acquired_mm,
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
        brightest = max(found.contrast.names, key=found.contrast.mean_of)
        few, many = found.contrast.snr_interval(brightest)
        limits.append(f"with either noise, all that is known of the SNR of {brightest} is {few:.3g} to {many:.3g}")
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
    if found.acquired_mm[axis] > 1.001 * edges.voxel_mm[axis]:
        limits.append(
            Caution(
                f"axis {letter}: the scan was interpolated or filtered; it holds the detail of voxels of "
                f"{found.acquired_mm[axis]:.2g} mm, not {edges.voxel_mm[axis]:.2g} mm"
            )
        )
    elif width > _SMOOTH_VOXELS:
        limits.append(
            f"axis {letter}: the noise is that of a kernel {width:.1f} voxels wide: the scan was probably "
            "filtered, and its voxels are finer than its detail"
        )
    return limits


def _spectrum(volume: Volume, tissues: TissueMap) -> tuple[NoiseSpectrum | None, Notes]:
    try:
        spectrum = noise_spectrum(volume, tissues.mask, noise_core(tissues))
    except BadInputError as error:
        return None, (str(error),)
    return spectrum, spectrum.notes
