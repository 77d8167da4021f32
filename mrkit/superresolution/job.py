"""Super-resolve from files to files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from inr.field_files import load_field, save_field
from inr.fitting.fit import FitSettings
from inr.fitting.prior import Prior
from inr.losses import absolute_misfit, rician_misfit
from inr.rendering import render
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.io.atomic import atomic_write
from mrcore.io.sidecar import file_sha256, software_version
from mrcore.io.volumes import load_volume
from mrkit.anatomy.subject import Subject, read_subject
from mrkit.devices import device_of
from mrkit.files.job import Job
from mrkit.files.kept import Kept
from mrkit.files.outputs import check_targets, in_space_of, write_image, write_page, write_tissues
from mrkit.files.provenance import Provenance, Record, input_files, installed_versions
from mrkit.report.report import build_report
from mrkit.simulation.protocol import Gauge
from mrkit.superresolution.contrast import in_contrast_of, require_same_weighting
from mrkit.superresolution.fitting import denoiser_prior
from mrkit.superresolution.page import NamedImage, superresolve_report
from mrkit.superresolution.superresolve import SuperResolved, superresolve
from mrkit.superresolution.trust_page import comparison_json

_KEPT = ("MagneticFieldStrength", "RepetitionTime", "EchoTime", "InversionTime", "FlipAngle", "SkullStripped")
"""Sidecar keys of the scan that hold for the result too."""
FIELD_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class SuperresolveJob:
    """A super-resolution from files, to voxels of `voxel_mm`.

    Attributes:
        common: files and settings that commands share; its image is the first scan.
        voxel_mm: of the result.
        tv_weight: of total variation; None to choose it by held-out voxels.
        with_denoiser: whether the shipped denoiser pulls the image.
        with_absolute_errors: whether the likelihood is that of absolute errors.
        free_of_bias: whether a receive field is taken out.
        init: image or field to start from.
        n_members: fits of the ensemble; 0 for no maps of trust.
        with_comparison: whether every method is run.
        with_field: whether the field is written.
        preview: whether the fit is left out.
        device: torch device of the fits.
        contrast_of: high-field image to whose contrast the result is mapped, too.
        gauge: what fixes the gains of that mapping.

    Raises:
        BadInputError: options that contradict each other.
    """

    common: Job
    voxel_mm: float = 1.0
    tv_weight: float | None = None
    with_denoiser: bool = False
    with_absolute_errors: bool = False
    free_of_bias: bool = False
    init: Path | None = None
    n_members: int = 0
    with_comparison: bool = False
    with_field: bool = False
    preview: bool = False
    device: str = "cpu"
    contrast_of: Path | None = None
    gauge: Gauge = Gauge.ABSOLUTE

    def __post_init__(self) -> None:
        if self.preview and (self.n_members or self.with_comparison or self.with_field):
            raise BadInputError("--preview makes no fit, so it has no uncertainty, comparison or field; leave one out")

    @property
    def images(self) -> list[Path]:
        """The images that are written."""
        target = self.common.target
        more = [*(("sr_sd", "sr_nullspace") if self.n_members else ()), *(("sr_mapped",) if self.contrast_of else ())]
        return [*map(target.image, ("sr", "cubic", "residualz", *more)), *target.tissues("sr")]

    @property
    def pages(self) -> list[Path]:
        """The other files that are written."""
        return [
            *([self.field] if self.with_field else []),
            *([self.table] if self.with_comparison else []),
            *([self.common.target.report("sr")] if self.common.with_report else []),
        ]

    @property
    def field(self) -> Path:
        """The fitted field."""
        target = self.common.target
        return target.directory / f"{target.stem}_sr_field{FIELD_SUFFIX}"

    @property
    def table(self) -> Path:
        """The comparison."""
        target = self.common.target
        return target.directory / f"{target.stem}_sr_comparison.json"

    @property
    def files(self) -> dict[str, Path]:
        """The files that are read, by role."""
        further = {"image to start from": self.init, "scan whose contrast is taken": self.contrast_of}
        return {**self.common.files, **{role: path for role, path in further.items() if path}}

    @property
    def settings(self) -> FitSettings | None:
        """Settings of the fit; None where its weight is to be chosen."""
        return None if self.tv_weight is None else replace(FitSettings(), tv_weight=self.tv_weight)


def superresolve_files(job: SuperresolveJob) -> list[Path]:
    """Fit and write image, tissues, cubic interpolation, residual and report; return what was written.

    Everything that can be refused is refused before the first file is written. Members of an ensemble and methods of a
    comparison are kept beside the results until these are written.
    """
    common = job.common
    check_targets(job.images, job.pages, job.files.values(), force=common.force)
    device = device_of(job.device)
    subject = read_subject(common)
    init = _read_init(job.init) if job.init else None
    reference = _read_reference(job.contrast_of, subject) if job.contrast_of else None
    denoiser: Prior | None = denoiser_prior(device=device) if job.with_denoiser or job.with_comparison else None
    members = _members(job, subject)
    result = superresolve(
        subject.volume,
        voxel_mm=job.voxel_mm,
        mask=subject.mask,
        tissues=subject.tissues,
        segmenter=subject.segmenter,
        seed=common.seed,
        settings=job.settings,
        prior=denoiser if job.with_denoiser else None,
        likelihood=absolute_misfit if job.with_absolute_errors else rician_misfit,
        free_of_bias=job.free_of_bias,
        init=init,
        n_members=job.n_members,
        compared={"denoiser prior": denoiser} if denoiser is not None and job.with_comparison else None,
        keep_member=members.image,
        preview=job.preview,
        device=device,
    )
    mapped: Volume | None = None
    if reference is not None:
        mapped, said = _mapped(reference, subject, result, job.gauge)
        result = replace(result, notes=(*result.notes, *said))
    written = _write(job, subject, result, mapped)
    members.remove()
    return written


def _read_init(path: Path) -> Volume:
    """Read an image or render a field on its own lattice."""
    if path.suffix == FIELD_SUFFIX:
        field = load_field(path)
        return render(field, field.field.grid)[0]
    return load_volume(path)


def _read_reference(path: Path, subject: Subject) -> Volume:
    reference = load_volume(path)
    require_same_weighting(subject.weighting, reference)
    return reference


def _mapped(
    reference: Volume, subject: Subject, result: SuperResolved, gauge: Gauge
) -> tuple[Volume | None, tuple[str, ...]]:
    """Return the result in the contrast of a reference, and what is said of it; a failure must not cost the fit."""
    try:
        images = (subject.volume, result.image, result.tissues)
        found = in_contrast_of(reference, *images, scan_weighting=subject.weighting, gauge=gauge)
    except BadInputError as error:
        return None, (f"the image was not mapped to the contrast of {reference.meta.get('SourceFile')}: {error}",)
    return found.mapped.image, found.notes


def _members(job: SuperresolveJob, subject: Subject) -> Kept:
    """Return where finished fits are kept: they serve only the same files, options and version."""
    hashes = [file_sha256(path) for path in job.files.values()]
    purpose = [software_version(), hashes, _parameters(job, subject), job.common.seed]
    target = job.common.target
    return Kept(target.directory / f".{target.stem}_members", json.dumps(purpose, default=str))


def _write(job: SuperresolveJob, subject: Subject, result: SuperResolved, mapped: Volume | None) -> list[Path]:
    target, force = job.common.target, job.common.force
    scan = subject.volume
    # The page comes first: should it fail, no results without a report stay behind.
    page = _page(job, subject, result, mapped) if job.common.with_report else None
    kept = {key: scan.meta[key] for key in _KEPT if key in scan.meta}
    made = kept | _provenance(job, subject, result).sidecar()
    written = [
        write_image(in_space_of(scan, volume), target.image(name), made | more, force=force)
        for name, (volume, more) in _volumes(job, result, mapped).items()
    ]
    tissues = made | {"Resolution": f"{job.voxel_mm:g} mm, isotropic"}
    written[1:1] = write_tissues(result.tissues, target, "sr", tissues, scan, force=force)
    if job.with_field and result.field is not None:
        save_field(result.field, job.field, force=force)
        written.append(job.field)
    if job.with_comparison and result.comparison is not None:
        with atomic_write(job.table, force=force) as temporary:
            temporary.write_text(json.dumps(comparison_json(result.comparison), indent=2) + "\n")
        written.append(job.table)
    if page is not None:
        written.append(write_page(page, target.report("sr"), force=force))
    return written


def _volumes(
    job: SuperresolveJob, result: SuperResolved, mapped: Volume | None
) -> dict[str, tuple[Volume, dict[str, object]]]:
    """Return the images to write by name, each with what its sidecar says of it alone."""
    finer: dict[str, object] = {"Resolution": f"{job.voxel_mm:g} mm, isotropic"}
    ended = result.solution
    fit = {"Converged": ended.converged, "NIter": ended.n_iter, "Message": ended.message, "NoiseSd": result.noise_sd}
    out: dict[str, tuple[Volume, dict[str, object]]] = {
        "sr": (result.image, finer | {"Fit": fit}),
        "cubic": (result.cubic, finer | {"Description": "Cubic interpolation of the scan"}),
        "residualz": (
            result.residual_z,
            {
                "Description": "(scan - prediction) / noise sd, on the grid of the scan",
                "Units": "noise standard deviations",
            },
        ),
    }
    if result.trust is not None:
        told = result.trust
        held = {"HeldOut": asdict(told.held_out), "NMembers": told.n_members, "NullScale": told.null_scale}
        said = "Standard deviation of the image: spread of the fits, and what the scan leaves open"
        out["sr_sd"] = (result.trust.sd, finer | {"Description": said} | held)
        said = "Part of the image that the scan cannot see: what prior and field put there"
        out["sr_nullspace"] = (result.trust.null_part, finer | {"Description": said})
    if mapped is not None and job.contrast_of is not None:
        said = f"The image in the contrast of {job.contrast_of.name}, by one rising curve; for eyes and tools"
        out["sr_mapped"] = (mapped, finer | {"Description": said})
    return out


def _parameters(job: SuperresolveJob, subject: Subject) -> dict[str, object]:
    return {
        "VoxelMm": job.voxel_mm,
        "Weighting": subject.weighting,
        "Segmenter": job.common.segmenter_used,
        "Mask": job.common.mask_used,
        "Regularisation": "chosen by held-out voxels" if job.tv_weight is None else job.tv_weight,
        "Prior": "shipped denoiser" if job.with_denoiser else "none",
        "Likelihood": "absolute errors" if job.with_absolute_errors else "Rician",
        "FreeOfBias": job.free_of_bias,
        "Init": job.init.name if job.init else "none",
        "Device": job.device,
        "ContrastOf": job.contrast_of.name if job.contrast_of else "none",
        "ContrastGauge": job.gauge.value,
    }


def _provenance(job: SuperresolveJob, subject: Subject, result: SuperResolved) -> Provenance:
    fit: Mapping[str, object] = {} if result.settings is None else {"Fit": asdict(result.settings)}
    return Provenance(job.files, job.common.seed, {**_parameters(job, subject), **fit}, result.notes)


def _page(job: SuperresolveJob, subject: Subject, result: SuperResolved, mapped: Volume | None) -> str:
    record = Record(
        seed=job.common.seed,
        segmenter=job.common.segmenter_used,
        notes=result.notes,
        inputs=input_files(job.files),
        parameters=_provenance(job, subject, result).parameters,
        versions=installed_versions(),
    )
    further = []
    if mapped is not None and job.contrast_of is not None:
        said = f"The same in the contrast of {job.contrast_of.name}, by one rising curve."
        further.append(NamedImage("Mapped contrast", mapped, said))
    return build_report(
        superresolve_report(
            scan=subject.volume,
            cubic=result.cubic,
            images=[NamedImage("Preview" if job.preview else "INR", result.image), *further],
            mask=result.tissues.mask,
            tissues=result.tissues,
            residual_z=result.residual_z,
            record=record,
            fit=None if job.preview else result.solution,
            trust=result.trust,
            comparison=result.comparison,
        )
    )
