"""Super-resolve from files to files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType

from inr.field_files import load_field, save_field
from inr.fitting.fit import FitSettings
from inr.fitting.prior import Prior
from inr.losses import Misfit, absolute_misfit, rician_misfit
from inr.rendering import render
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.io.sidecar import file_sha256, software_version
from mrcore.segmentation.tissues import Segmenter
from mrkit.anatomy.finding import weighting_cautions, weighting_of
from mrkit.anatomy.segmenters import segmenter_named
from mrkit.anatomy.subject import Subject, read_subject
from mrkit.devices import device_of
from mrkit.files.images import read_scan
from mrkit.files.job import Job
from mrkit.files.kept import Kept
from mrkit.files.outputs import (
    FileOutput,
    ImageOutput,
    Output,
    OutputNames,
    TissueOutput,
    check_outputs,
    json_output,
    text_output,
    write_results,
)
from mrkit.files.provenance import Record, distinct_names, distinct_stems
from mrkit.files.warn import warn_of
from mrkit.report.report import build_page
from mrkit.simulation.protocol import Gauge
from mrkit.superresolution.contrast import require_same_weighting
from mrkit.superresolution.fitting import denoiser_prior
from mrkit.superresolution.page import superresolve_report
from mrkit.superresolution.prepare import segmented_scan
from mrkit.superresolution.superresolve import SuperResolved, superresolve
from mrkit.superresolution.trust_page import comparison_json

FIELD_SUFFIX = ".safetensors"
LIKELIHOODS: Mapping[str, Misfit] = MappingProxyType({"rician": rician_misfit, "absolute": absolute_misfit})
"""Likelihoods by the names of the command line."""
_LASTING = ("MagneticFieldStrength", "RepetitionTime", "EchoTime", "InversionTime", "FlipAngle", "SkullStripped")
"""Sidecar keys of a scan that hold for its result too."""


@dataclass(frozen=True)
class SuperresolveJob:
    """A super-resolution from files.

    Attributes:
        common: files and settings that jobs share; its image is the first scan, whose axes the result has.
        others: further scans of the same person.
        voxel_mm: of the result.
        tv_weight: of total variation; None to choose it by held-out voxels.
        prior: `denoiser` lets the shipped one pull the images, `none` nothing.
        likelihood: one of `LIKELIHOODS`.
        bias_field: whether a receive field is taken out.
        init: image or field to start from.
        n_members: fits of the ensemble; 0 for no maps of trust.
        compare: whether every method is run.
        save_field: whether the field is written.
        preview: whether the fit is left out.
        device: torch device of the fits.
        slice_thickness_mm: of every scan, in place of what its sidecar says.
        acquired_voxel_mm: acquired voxel of every scan in plane, likewise.
        contrast_of: high-field image to whose contrast the result is mapped, too.
        gauge: what fixes the gains of that mapping.
        noise_sd: of a single scan; None to estimate it.

    Raises:
        BadInputError: options that contradict each other, or two scans of one folder and one name.
    """

    common: Job
    others: tuple[Path, ...] = ()
    voxel_mm: float = 1.0
    tv_weight: float | None = None
    prior: str = "none"
    likelihood: str = "rician"
    bias_field: bool = False
    init: Path | None = None
    n_members: int = 0
    compare: bool = False
    save_field: bool = False
    preview: bool = False
    device: str = "cpu"
    slice_thickness_mm: float | None = None
    acquired_voxel_mm: tuple[float, float] | None = None
    contrast_of: Path | None = None
    gauge: Gauge = Gauge.ABSOLUTE
    noise_sd: float | None = None

    def __post_init__(self) -> None:
        if self.preview and (self.n_members or self.compare or self.save_field):
            raise BadInputError("--preview makes no fit, so it has no uncertainty, comparison or field; leave one out")
        stems = [names.stem for names in self.names]
        twice = sorted({name for name in stems if stems.count(name) > 1})
        if twice:
            raise BadInputError(
                f"results are named by their scans, and two of one folder are named '{twice[0]}': rename one, or give "
                "each once"
            )

    @property
    def scans(self) -> tuple[Path, ...]:
        """All scans, in order."""
        return (self.common.image, *self.others)

    @property
    def names(self) -> tuple[OutputNames, ...]:
        """Where the results of each scan go; scans of one name are told by their folders."""
        stems = distinct_stems(self.scans)
        return tuple(OutputNames(self.common.out, stems[path]) for path in self.scans)

    @property
    def files(self) -> dict[str, Path]:
        """The files that are read, by role."""
        scans = {f"image {n}": path for n, path in enumerate(self.others, start=2)}
        further = {"image to start from": self.init, "scan whose contrast is taken": self.contrast_of}
        return {**self.common.files, **scans, **{role: path for role, path in further.items() if path}}

    @property
    def field(self) -> Path:
        """The fitted field."""
        return self.names[0].file(f"sr_field{FIELD_SUFFIX}")

    @property
    def table(self) -> Path:
        """The comparison."""
        return self.names[0].file("sr_comparison.json")

    @property
    def others_written(self) -> list[Path]:
        """The files that are written beside images."""
        return [
            *([self.field] if self.save_field else []),
            *([self.table] if self.compare else []),
            *([self.names[0].report("sr")] if self.common.with_report else []),
        ]

    def images(self, leads: list[int]) -> list[Path]:
        """Return the images that are written; `leads` are the numbers of the first scan of each contrast."""
        trust = ("sr_sd", "sr_nullspace") if self.n_members else ()
        of_contrasts = [self.names[lead].image(kind) for lead in leads for kind in ("sr", "cubic", *trust)]
        # Which contrast is mapped is known once the reference has been read: each may be.
        mapped = [self.names[lead].image("sr_mapped") for lead in leads] if self.contrast_of else []
        return [
            *of_contrasts,
            *mapped,
            *(names.image("residualz") for names in self.names),
            *self.names[0].tissues("sr"),
        ]


def superresolve_files(job: SuperresolveJob) -> list[Path]:
    """Fit and write images, tissues, cubic interpolations, residuals and report; return what was written.

    Everything that can be refused is refused before the first file is written. Members of an ensemble and methods of a
    comparison are kept beside the results until these are written.
    """
    common = job.common
    check_outputs([job.names[0].image("sr")], job.others_written, job.files.values(), force=common.force)
    device = device_of(job.device)
    subject = read_subject(common)
    scans = [subject.volume, *map(read_scan, job.others)]
    weightings = [subject.weighting]
    for scan in scans[1:]:
        warn_of(weighting_cautions(scan))
    weightings += [weighting_of(scan, path.name) for scan, path in zip(scans[1:], job.others, strict=True)]
    leads = [weightings.index(name) for name in dict.fromkeys(weightings)]
    check_outputs(job.images(leads), job.others_written, job.files.values(), force=common.force)
    reference = read_scan(job.contrast_of) if job.contrast_of else None
    if reference is not None:
        require_same_weighting(weightings, reference)
    init = _read_init(job.init) if job.init else None
    denoiser: Prior | None = denoiser_prior(device=device) if job.prior == "denoiser" or job.compare else None
    members = _members(job, weightings)
    result = superresolve(
        scans,
        voxel_mm=job.voxel_mm,
        mask=subject.mask,
        tissues=subject.tissues,
        segmenter=_segmenter(job, subject, weightings),
        weightings=weightings,
        slice_thickness_mm=job.slice_thickness_mm,
        acquired_voxel_mm=job.acquired_voxel_mm,
        seed=common.seed,
        settings=None if job.tv_weight is None else replace(FitSettings(), tv_weight=job.tv_weight),
        prior=denoiser if job.prior == "denoiser" else None,
        likelihood=LIKELIHOODS[job.likelihood],
        bias_field=job.bias_field,
        init=init,
        n_members=job.n_members,
        compare={"denoiser prior": denoiser} if denoiser is not None and job.compare else None,
        keep_member=members.image,
        preview=job.preview,
        contrast_of=reference,
        gauge=job.gauge,
        device=device,
        noise_sd=job.noise_sd,
    )
    warn_of(result.notes)
    record = _record(job, weightings, result)
    outputs = _outputs(job, scans, weightings, result)
    if common.with_report:
        page = build_page(superresolve_report(scans, weightings, result, record))
        outputs.append(text_output(job.names[0].report("sr"), page))
    written = write_results(outputs, record.sidecar(), force=common.force)
    members.remove()
    return written


def _read_init(path: Path) -> Volume:
    """Read an image or render a field on its own lattice."""
    if path.suffix == FIELD_SUFFIX:
        field = load_field(path)
        return render(field, field.field.grid)[0]
    return read_scan(path)


def _segmenter(job: SuperresolveJob, subject: Subject, weightings: list[str]) -> Segmenter:
    """Return the segmenter for the weighting of the scan that is segmented."""
    segmented = segmented_scan(weightings, given=subject.mask is not None or subject.tissues is not None)
    return segmenter_named(job.common.segmenter, weightings[segmented])


def _members(job: SuperresolveJob, weightings: list[str]) -> Kept:
    """Return where finished fits are kept: they serve only the same files, options and version."""
    hashes = [file_sha256(path) for path in job.files.values()]
    purpose = [software_version(), hashes, _parameters(job, weightings), job.common.seed]
    names = job.names[0]
    return Kept(names.directory / f".{names.stem}_members", json.dumps(purpose, default=str))


def _outputs(job: SuperresolveJob, scans: list[Volume], weightings: list[str], result: SuperResolved) -> list[Output]:
    """Return the files to write but for the report."""
    first, finer = scans[0], {"Resolution": f"{job.voxel_mm:g} mm, isotropic"}
    outputs: list[Output] = []
    for contrast, name in enumerate(result.contrasts):
        number = weightings.index(name)
        about = {**_lasting(scans[number]), **finer}
        for kind, (volume, more) in _images(job, result, contrast).items():
            outputs.append(ImageOutput(job.names[number].image(kind), volume, first, {**about, **more}))
    outputs.insert(1, TissueOutput(job.names[0], "sr", result.tissues, first, {**_lasting(first), **finer}))
    text = {
        "Description": "(scan - prediction) / noise sd, on the grid of the scan",
        "Units": "noise standard deviations",
    }
    for scan, residual, names in zip(scans, result.residuals_z, job.names, strict=True):
        outputs.append(ImageOutput(names.image("residualz"), residual, scan, {**_lasting(scan), **text}))
    if job.save_field and (field := result.field) is not None:
        outputs.append(FileOutput(job.field, lambda to, force: save_field(field, to, force=force)))
    if result.comparison is not None:
        outputs.append(json_output(job.table, comparison_json(result.comparison)))
    return outputs


def _lasting(scan: Volume) -> dict[str, object]:
    return {key: scan.meta[key] for key in _LASTING if key in scan.meta}


def _images(
    job: SuperresolveJob, result: SuperResolved, contrast: int
) -> dict[str, tuple[Volume, Mapping[str, object]]]:
    """Return the images of a contrast by name, each with what its sidecar says of it alone."""
    ended = result.solution
    fit = {"Converged": ended.converged, "NIter": ended.n_iter, "Message": ended.message, "NoiseSd": result.noise_sd}
    out: dict[str, tuple[Volume, Mapping[str, object]]] = {
        "sr": (result.images[contrast], {"Fit": fit}),
        "cubic": (result.cubics[contrast], {"Description": "Cubic interpolation of the scan"}),
    }
    trust = result.trust
    if trust is not None:
        text = "Standard deviation of the image: spread of the fits, and what the scan leaves open"
        scale = trust.null_scales[contrast]
        held = {"HeldOut": asdict(trust.held_out), "NMembers": trust.n_members, "NullScale": scale}
        out["sr_sd"] = (trust.sds[contrast], {"Description": text, **held})
        text = "Part of the image that the scan cannot see: what prior and field put there"
        out["sr_nullspace"] = (trust.null_parts[contrast], {"Description": text})
    mapped = result.mapped
    if mapped is not None and mapped.contrast == result.contrasts[contrast] and job.contrast_of is not None:
        text = f"The image in the contrast of {job.contrast_of.name}, by one rising curve; for eyes and tools"
        out["sr_mapped"] = (mapped.mapped.image, {"Description": text})
    return out


def _parameters(job: SuperresolveJob, weightings: list[str]) -> dict[str, object]:
    several: dict[str, object] = {"Weightings": weightings} if job.others else {}
    if job.slice_thickness_mm is not None:
        several["SliceThicknessMm"] = job.slice_thickness_mm
    if job.acquired_voxel_mm is not None:
        several["AcquiredVoxelMm"] = list(job.acquired_voxel_mm)
    return {
        "VoxelMm": job.voxel_mm,
        "Weighting": weightings[0],
        **several,
        "Segmenter": job.common.segmenter_used,
        "Mask": job.common.mask_used,
        "Regularisation": "chosen by held-out voxels" if job.tv_weight is None else job.tv_weight,
        "Prior": "shipped denoiser" if job.prior == "denoiser" else "none",
        "Likelihood": "absolute errors" if job.likelihood == "absolute" else "Rician",
        "FreeOfBias": job.bias_field,
        "Init": job.init.name if job.init else "none",
        "Device": job.device,
        "ContrastOf": job.contrast_of.name if job.contrast_of else "none",
        "ContrastGauge": job.gauge.value,
        "NoiseSdGiven": job.noise_sd,
    }


def _record(job: SuperresolveJob, weightings: list[str], result: SuperResolved) -> Record:
    parameters = _parameters(job, weightings)
    if result.stacks:
        parameters["Stacks"] = _stacks(job, weightings, result)
    if result.settings is not None:
        parameters["Fit"] = asdict(result.settings)
    return Record(job.files, job.common.seed, parameters, result.notes, job.common.segmenter_used)


def _stacks(job: SuperresolveJob, weightings: list[str], result: SuperResolved) -> list[dict[str, object]]:
    """Return poses, scales and slice weights that were found."""
    files = distinct_names(job.scans)
    return [
        {
            "Scan": files[path],
            "Weighting": name,
            "TurnDeg": list(stack.pose.turn_deg),
            "ShiftMm": list(stack.pose.shift_mm),
            "Scale": stack.scale,
            "SliceWeights": [] if stack.slice_weights is None else [round(float(w), 3) for w in stack.slice_weights],
        }
        for path, name, stack in zip(job.scans, weightings, result.stacks, strict=True)
    ]
