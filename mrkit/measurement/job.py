"""Measure one scan from its file; write what was found, the tissues it rests on, and a page."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.io.sidecar import sidecar_path, write_sidecar
from mrcore.noise_estimate import RESIDUAL
from mrkit.anatomy.brain import usable
from mrkit.anatomy.finding import find_tissues
from mrkit.anatomy.subject import read_subject
from mrkit.files.job import Job
from mrkit.files.outputs import check_targets, write_page, write_tissues
from mrkit.files.provenance import Provenance, input_files
from mrkit.measurement.measured import Measured, as_values
from mrkit.measurement.page import build_measure_page
from ulfsim.measurement.contrast import coloured_noise, measure, noise_core, tissue_cores
from ulfsim.measurement.edge_spread import edge_spread
from ulfsim.measurement.spectrum import NoiseSpectrum, noise_spectrum

_SMOOTH_VOXELS, _SOFT_VOXELS = 1.5, 3.0


def measure_file(job: Job) -> Measured:
    """Read the scan, find its tissues, and measure it.

    Raises:
        BadInputError: a file that cannot be used, a brain or tissues that cannot be found.
        GridMismatchError: mask or tissues on another grid.
        MissingExtraError: the segmenter or the masker is not installed.
    """
    subject = read_subject(job)
    notes: list[str] = []
    volume = usable(subject.volume)
    tissues = find_tissues(volume, subject.tissues, subject.mask, subject.segmenter, notes)
    contrast = measure(volume, tissues, noise=coloured_noise(volume, tissues))
    cores, _ = tissue_cores(tissues)
    white = measure(volume, tissues) if contrast.noise_method == RESIDUAL else contrast
    spectrum = _spectrum(volume, tissues, notes)
    edges = edge_spread(volume, tissues.mask)
    said = (*notes, *contrast.notes, *(spectrum.notes if spectrum else ()))
    found = Measured(
        image=job.image,
        weighting=subject.weighting,
        volume=volume,
        tissues=tissues,
        cores=cores,
        contrast=contrast,
        white=white,
        spectrum=spectrum,
        edges=edges,
        notes=(),
    )
    return replace(found, notes=tuple(dict.fromkeys((*warnings_of(found), *said))))


def measure_to_folder(job: Job) -> tuple[Measured, list[Path]]:
    """Measure the scan of `job`, write table, tissues and page into its folder, and return what was written.

    Everything that can be refused is refused before the first file is written.

    Raises:
        BadInputError: as `measure_file`, or a result that exists and `force` is off.
    """
    target = job.target
    table, page = target.directory / f"{target.stem}_measure.json", target.directory / f"{target.stem}_measure.html"
    check_targets(target.tissues(""), [table, page], job.files.values(), force=job.force)
    found = measure_file(job)
    parameters = _parameters(job, found)
    provenance = Provenance(job.files, job.seed, parameters, found.notes).sidecar()
    origin = {key: provenance[key] for key in ("Sources", "SourcesSHA256", "Parameters")}
    html = build_measure_page(found, input_files(job.files), parameters, job.segmenter_used)
    maps_say = origin | {"Notes": provenance["Notes"]}
    written = write_tissues(found.tissues, target, "", maps_say, found.volume, force=job.force)
    # The name alone: a table must not depend on where the scan lay.
    write_sidecar(table, as_values(found) | {"image": job.image.name} | origin, force=job.force)
    return found, [*written, sidecar_path(table), write_page(html, page, force=job.force)]


def warnings_of(found: Measured) -> list[str]:
    """Return what limits the values, beyond what the estimators say themselves."""
    warnings = []
    if found.is_bracketed:
        low, high = found.noise_range
        brightest = max(range(len(found.contrast.names)), key=lambda t: found.contrast.mean[t])
        name = found.contrast.names[brightest]
        few, many = found.contrast.snr[brightest], found.white.snr[brightest]
        warnings.append(
            f"the noise is only bracketed: its sd is {low:.4g} if it is white and {high:.4g} if the colour of the "
            f"residuals is its own and not anatomy's. SNR and CNR are given for the latter; {name} has an SNR of "
            f"{few:.3g} to {many:.3g}, and the 95 % intervals leave that open"
        )
    if found.thin:
        warnings.append(
            f"the core of {' and '.join(found.thin)} is thin: its values hold partial volume and rest on few places"
        )
    letters = found.orientation
    edges, spectrum = found.edges, found.spectrum
    for axis in range(3):
        if not math.isfinite(edges.fwhm_mm[axis]):
            warnings.append(f"axis {letters[axis]}: only {edges.n_edges[axis]} usable edges, too few for a width")
        if edges.fwhm_voxels[axis] > _SOFT_VOXELS:
            warnings.append(
                f"axis {letters[axis]}: an edge spread of {edges.fwhm_voxels[axis]:.1f} voxels is more than a point "
                "spread makes; the borders there are soft, or lie too close together to be told apart"
            )
        width = spectrum.fwhm_mm[axis] / edges.voxel_mm[axis] if spectrum else 0.0
        if width > _SMOOTH_VOXELS:
            warnings.append(
                f"axis {letters[axis]}: the noise is that of a kernel {width:.1f} voxels wide: the scan was probably "
                "filtered or interpolated, and its voxels are finer than its detail"
            )
    return warnings


def _parameters(job: Job, found: Measured) -> dict[str, object]:
    tissues = {"Tissues": [path.name for path in job.tissues]} if job.tissues else {}
    return {"Weighting": found.weighting, "Segmenter": job.segmenter_used, "Mask": job.mask_used, **tissues}


def _spectrum(volume: Volume, tissues: TissueMap, notes: list[str]) -> NoiseSpectrum | None:
    try:
        return noise_spectrum(volume, tissues.mask, noise_core(tissues))
    except BadInputError as error:
        notes.append(str(error))
        return None
