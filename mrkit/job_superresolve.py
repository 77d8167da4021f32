"""Super-resolve from files to files."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from inr.fit import FitSettings
from mrkit.api import SuperResolved, superresolve
from mrkit.jobs import Job, Subject, input_files, read_subject
from mrkit.outputs import Provenance, check_targets, in_space_of, write_image, write_page, write_tissues
from mrkit.report import build_report
from mrkit.report_pages import NamedImage, Record, installed_versions, superresolve_report

_KEPT = ("MagneticFieldStrength", "RepetitionTime", "EchoTime", "InversionTime", "FlipAngle", "SkullStripped")
"""Sidecar keys of the scan that hold for the result too."""


@dataclass(frozen=True)
class SuperresolveJob:
    """A super-resolution from files, to voxels of `voxel_mm`, with the settings `fit`."""

    common: Job
    voxel_mm: float = 1.0
    fit: FitSettings = field(default_factory=FitSettings)

    @property
    def images(self) -> list[Path]:
        """The images that are written."""
        target = self.common.target
        return [target.image("sr"), *target.tissues("sr"), target.image("cubic"), target.image("residualz")]

    @property
    def pages(self) -> list[Path]:
        """The pages that are written."""
        return [self.common.target.report("sr")] if self.common.with_report else []


def superresolve_files(job: SuperresolveJob) -> list[Path]:
    """Fit and write image, tissues, cubic interpolation, residual and report; return what was written.

    Everything that can be refused is refused before the first file is written.
    """
    common = job.common
    check_targets(job.images, job.pages, common.files.values(), force=common.force)
    subject = read_subject(common)
    result = superresolve(
        subject.volume,
        voxel_mm=job.voxel_mm,
        mask=subject.mask,
        tissues=subject.tissues,
        segmenter=subject.segmenter,
        seed=common.seed,
        settings=job.fit,
    )
    return _write(job, subject, result)


def _write(job: SuperresolveJob, subject: Subject, result: SuperResolved) -> list[Path]:
    target, force = job.common.target, job.common.force
    scan = subject.volume
    # The page comes first: should it fail, no results without a report stay behind.
    page = _page(job, subject, result) if job.common.with_report else None
    kept = {key: scan.meta[key] for key in _KEPT if key in scan.meta}
    sidecar = kept | _provenance(job, subject, result).sidecar() | {"Resolution": f"{job.voxel_mm:g} mm, isotropic"}
    fit = {"Converged": result.solution.converged, "NIter": result.solution.n_iter, "Message": result.solution.message}
    image_sidecar = sidecar | {"Fit": fit | {"NoiseSd": result.noise_sd}}
    cubic_sidecar = sidecar | {"Description": "Cubic interpolation of the scan"}
    residual_sidecar = (
        kept
        | _provenance(job, subject, result).sidecar()
        | {
            "Description": "(scan - prediction) / noise sd, on the grid of the scan",
            "Units": "noise standard deviations",
        }
    )
    written = [
        write_image(in_space_of(scan, result.image), target.image("sr"), image_sidecar, force=force),
        *write_tissues(result.tissues, target, "sr", sidecar, scan, force=force),
        write_image(in_space_of(scan, result.cubic), target.image("cubic"), cubic_sidecar, force=force),
        write_image(in_space_of(scan, result.residual_z), target.image("residualz"), residual_sidecar, force=force),
    ]
    if page is not None:
        written.append(write_page(page, target.report("sr"), force=force))
    return written


def _provenance(job: SuperresolveJob, subject: Subject, result: SuperResolved) -> Provenance:
    parameters: dict[str, object] = {
        "VoxelMm": job.voxel_mm,
        "Weighting": subject.weighting,
        "Segmenter": job.common.segmenter_used,
        "Mask": job.common.mask_used,
        "Fit": asdict(job.fit),
    }
    return Provenance(job.common.files, job.common.seed, parameters, result.notes)


def _page(job: SuperresolveJob, subject: Subject, result: SuperResolved) -> str:
    provenance = _provenance(job, subject, result)
    record = Record(
        seed=job.common.seed,
        segmenter=job.common.segmenter_used,
        notes=result.notes,
        inputs=input_files(job.common.files),
        parameters=provenance.parameters,
        versions=installed_versions(),
    )
    report = superresolve_report(
        scan=subject.volume,
        cubic=result.cubic,
        images=[NamedImage("INR", result.image)],
        mask=result.tissues.mask,
        tissues=result.tissues,
        residual_z=result.residual_z,
        record=record,
        fit=result.solution,
    )
    return build_report(report)
