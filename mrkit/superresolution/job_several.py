"""Super-resolve several scans of one person, from files to files."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from inr.field_files import save_field
from inr.fitting.fit import FitSettings
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.io.sidecar import stem
from mrcore.io.volumes import load_volume
from mrkit.anatomy.finding import weighting_of
from mrkit.anatomy.subject import read_subject
from mrkit.devices import device_of
from mrkit.files.job import Job
from mrkit.files.outputs import Target, check_targets, in_space_of, write_image, write_page, write_tissues
from mrkit.files.provenance import Provenance, Record, input_files, installed_versions
from mrkit.report.report import build_report
from mrkit.superresolution.fitting import denoiser_prior
from mrkit.superresolution.several import SuperResolvedSeveral, superresolve_several
from mrkit.superresolution.several_page import several_report


@dataclass(frozen=True)
class SeveralJob:
    """A super-resolution of several scans, to voxels of `voxel_mm`.

    Attributes:
        common: files and settings that commands share; its image is the first scan, whose axes the result has.
        others: the other scans.
        voxel_mm: of the result.
        tv_weight: of total variation; None to choose it by held-out voxels.
        with_denoiser: whether the shipped denoiser pulls the images.
        with_field: whether the field is written.
        device: torch device of the fit.

    Raises:
        BadInputError: two scans whose files have one name.
    """

    common: Job
    others: tuple[Path, ...]
    voxel_mm: float = 1.0
    tv_weight: float | None = None
    with_denoiser: bool = False
    with_field: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        stems = [stem(path) for path in self.scans]
        twice = sorted({name for name in stems if stems.count(name) > 1})
        if twice:
            raise BadInputError(f"results are named by their scans; two are named '{twice[0]}': rename one")

    @property
    def scans(self) -> tuple[Path, ...]:
        """All scans, in order."""
        return (self.common.image, *self.others)

    @property
    def targets(self) -> tuple[Target, ...]:
        """Where the results of each scan go."""
        return tuple(Target(self.common.out, stem(path)) for path in self.scans)

    @property
    def files(self) -> dict[str, Path]:
        """The files that are read, by role."""
        return {**self.common.files, **{f"image {n}": path for n, path in enumerate(self.others, start=2)}}

    @property
    def field(self) -> Path:
        """The fitted field."""
        return self.common.out / f"{self.common.target.stem}_sr_field.safetensors"


def superresolve_several_files(job: SeveralJob) -> list[Path]:
    """Fit and write an image a contrast, tissues, residuals and report; return what was written.

    Everything that can be refused is refused before the first file is written.
    """
    common = job.common
    device = device_of(job.device)
    scans = [load_volume(path) for path in job.scans]
    said = [weighting_of(scan, path.name) for scan, path in zip(scans, job.scans, strict=True)]
    subject = read_subject(common)
    said[0] = subject.weighting
    leads = [said.index(name) for name in dict.fromkeys(said)]
    images = [job.targets[n].image(kind) for n in leads for kind in ("sr", "cubic")]
    images += [*common.target.tissues("sr"), *(target.image("residualz") for target in job.targets)]
    pages = [*([job.field] if job.with_field else []), *([common.target.report("sr")] if common.with_report else [])]
    check_targets(images, pages, job.files.values(), force=common.force)
    result = superresolve_several(
        scans,
        voxel_mm=job.voxel_mm,
        mask=subject.mask,
        tissues=subject.tissues,
        weightings=said,
        seed=common.seed,
        settings=None if job.tv_weight is None else replace(FitSettings(), tv_weight=job.tv_weight),
        prior=denoiser_prior(device=device) if job.with_denoiser else None,
        device=device,
    )
    return _write(job, scans, said, result)


def _write(job: SeveralJob, scans: list[Volume], said: list[str], result: SuperResolvedSeveral) -> list[Path]:
    common, force, first = job.common, job.common.force, scans[0]
    provenance = Provenance(job.files, common.seed, _parameters(job, said, result), result.notes)
    # The page comes first: should it fail, no results without a report stay behind.
    page = (
        build_report(several_report(scans, said, result, _record(job, result, provenance)))
        if common.with_report
        else None
    )
    made = provenance.sidecar()
    finer = made | {"Resolution": f"{job.voxel_mm:g} mm, isotropic"}
    written = []
    for contrast, image, plain in zip(result.contrasts, result.images, result.cubic, strict=True):
        target = job.targets[said.index(contrast)]
        written.append(write_image(in_space_of(first, image), target.image("sr"), finer, force=force))
        text = {"Description": "Cubic interpolation of the scan, where its header places it"}
        written.append(write_image(in_space_of(first, plain), target.image("cubic"), finer | text, force=force))
    written += write_tissues(result.tissues, common.target, "sr", finer, first, force=force)
    text = {"Description": "(scan - prediction) / noise sd, on the grid of the scan", "Units": "noise sd"}
    for scan, residual, target in zip(scans, result.residuals_z, job.targets, strict=True):
        written.append(write_image(in_space_of(scan, residual), target.image("residualz"), made | text, force=force))
    if job.with_field:
        save_field(result.field, job.field, force=force)
        written.append(job.field)
    if page is not None:
        written.append(write_page(page, common.target.report("sr"), force=force))
    return written


def _parameters(job: SeveralJob, said: list[str], result: SuperResolvedSeveral) -> dict[str, object]:
    poses = [
        {
            "Scan": path.name,
            "Weighting": name,
            "TurnDeg": list(stack.pose.turn_deg),
            "ShiftMm": list(stack.pose.shift_mm),
            "Scale": stack.scale,
            "SliceWeights": [] if stack.slice_weights is None else [round(float(w), 3) for w in stack.slice_weights],
        }
        for path, name, stack in zip(job.scans, said, result.stacks, strict=True)
    ]
    return {
        "VoxelMm": job.voxel_mm,
        "Segmenter": job.common.segmenter_used,
        "Mask": job.common.mask_used,
        "Regularisation": "chosen by held-out voxels" if job.tv_weight is None else job.tv_weight,
        "Prior": "shipped denoiser" if job.with_denoiser else "none",
        "Device": job.device,
        "Stacks": poses,
        "Fit": asdict(result.settings),
    }


def _record(job: SeveralJob, result: SuperResolvedSeveral, provenance: Provenance) -> Record:
    return Record(
        seed=job.common.seed,
        segmenter=job.common.segmenter_used,
        notes=result.notes,
        inputs=input_files(job.files),
        parameters=provenance.parameters,
        versions=installed_versions(),
    )
