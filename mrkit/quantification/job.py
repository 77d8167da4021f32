"""Quantify from files to files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from mrcore.data.volume import Volume
from mrcore.denoisers.files import load_denoiser
from mrcore.errors import BadInputError
from mrcore.io.sidecar import file_sha256, software_version, stem
from mrcore.io.tissues import load_mask
from mrkit.files.kept import Kept
from mrkit.files.outputs import ImageOutput, Output, OutputNames, check_outputs, text_output, write_results
from mrkit.files.provenance import Record
from mrkit.files.warn import warn_of
from mrkit.progress import stages, steps
from mrkit.quantification.input import IsmrmrdOptions, Train, read_data
from mrkit.quantification.kept_maps import kept_maps
from mrkit.quantification.methods import DEFAULT_METHOD, METHODS, usual_denoiser
from mrkit.quantification.page import Shown, quantify_report
from mrkit.quantification.quantify import Quantified, QuantifySettings, prepare_raw, quantify_prepared, weighted_volume
from mrkit.report.report import build_page
from recon.contrasts import FLAIR, T1W, T2W, Contrast

DEFAULT_WEIGHTED = (T1W, T2W, FLAIR)
_B1_STEP = 0.05
MAPS: dict[str, tuple[str, str]] = {
    "desc-seconds_T1map": ("s", "T1, 0 outside the object"),
    "desc-seconds_T2map": ("s", "T2, 0 outside the object"),
    "desc-relative_PDmap": ("arbitrary", "Magnitude of PD, in the unit of the data over that of the coil maps"),
    "desc-factor_TB1map": ("1", "Flip angle over the nominal one"),
    "desc-sdseconds_T1map": ("s", "Least standard deviation of T1 by the noise (Cramer-Rao); nothing about bias"),
    "desc-sdseconds_T2map": ("s", "Least standard deviation of T2 by the noise (Cramer-Rao); nothing about bias"),
    "desc-sdrelative_PDmap": (
        "arbitrary",
        "Least standard deviation of PD by the noise (Cramer-Rao), in the unit of PD; nothing about bias",
    ),
    "desc-relative_residual": ("1", "Share of the signal that no atom of the dictionary explains"),
}
"""Unit and description of each map, by the last part of its file's name."""


@dataclass(frozen=True)
class QuantifyJob:
    """A quantification from files.

    Attributes:
        raw: raw data.
        out: folder of the results.
        train: what was given of the sequence.
        trajectory: file that stands for the trajectory of the raw data.
        ismrmrd: what an ISMRMRD file may leave open.
        mask: of the object; None to find it.
        method: one of `METHODS`; `compare` runs all of them for the page.
        denoiser: a denoiser for MRI2Qmap, 2-D or, for volumes, 3-D; None for the one that comes with mrkit.
        settings: of dictionary, coils and subspace.
        weighted: images that are computed from the maps.
        seed: of all randomness.
        with_report: whether to write the HTML page.
        force: whether to replace what is there.
    """

    raw: Path
    out: Path
    train: Train = field(default_factory=Train)
    trajectory: Path | None = None
    ismrmrd: IsmrmrdOptions = field(default_factory=IsmrmrdOptions)
    mask: Path | None = None
    method: str = DEFAULT_METHOD
    compare: bool = False
    denoiser: Path | None = None
    settings: QuantifySettings = field(default_factory=QuantifySettings)
    weighted: tuple[Contrast, ...] = DEFAULT_WEIGHTED
    seed: int = 0
    with_report: bool = True
    force: bool = False

    @property
    def names(self) -> OutputNames:
        """Where the results go and how their names begin."""
        return OutputNames(self.out, stem(self.raw))

    @property
    def files(self) -> dict[str, Path]:
        """The files that are read, by role."""
        roles = {
            "raw data": self.raw,
            "sequence": self.train.sequence,
            "slice profile": self.train.slice_profile,
            "trajectory": self.trajectory,
            "mask": self.mask,
            "denoiser": self.denoiser,
        }
        return {role: path for role, path in roles.items() if path is not None}

    @property
    def images(self) -> list[Path]:
        """The images that are written."""
        kinds = [*MAPS, *(weighted_name(contrast) for contrast in self.weighted)]
        return [self.names.image(name) for name in kinds if name != "desc-factor_TB1map" or self.settings.b1]

    @property
    def pages(self) -> list[Path]:
        """The pages that are written."""
        return [self.names.report("quantify")] if self.with_report else []


def job_of(arguments: argparse.Namespace) -> QuantifyJob:
    """Return the job that the arguments of the command describe."""
    low, high = arguments.b1 or (1.0, 1.0)
    n_steps = round((high - low) / _B1_STEP)
    if arguments.b1 and not low < high:
        raise BadInputError(f"--b1 needs a range of factors that rises, got {low:g} {high:g}")
    b1 = tuple(low + (high - low) * i / max(1, n_steps) for i in range(n_steps + 1)) if arguments.b1 else ()
    settings = QuantifySettings(
        rank=arguments.rank,
        t1_range_s=tuple(arguments.t1_range),
        t2_range_s=tuple(arguments.t2_range),
        b1=b1,
        n_coils=arguments.coils,
    )
    weighted = tuple(_contrast(*times) for times in arguments.weighted or ())
    return QuantifyJob(
        raw=arguments.raw,
        out=arguments.out,
        train=Train(
            sequence=arguments.sequence,
            ti_s=arguments.ti,
            inversion_efficiency=arguments.inversion_efficiency,
            balanced=arguments.balanced,
            off_resonance_hz=arguments.off_resonance,
            slice_profile=arguments.slice_profile,
        ),
        trajectory=arguments.trajectory,
        ismrmrd=IsmrmrdOptions(
            k_unit=arguments.k_unit,
            slice_index=arguments.slice,
            encoding=arguments.encoding,
            fov_mm=tuple(arguments.fov) if arguments.fov else None,
            frame_counter=arguments.frame_counter,
        ),
        mask=arguments.mask,
        method=arguments.method,
        compare=arguments.compare,
        denoiser=arguments.denoiser,
        settings=settings,
        weighted=weighted or DEFAULT_WEIGHTED,
        seed=arguments.seed,
        with_report=not arguments.no_report,
        force=arguments.force,
    )


def quantify_files(job: QuantifyJob) -> list[Path]:
    """Quantify and write maps, computed images and report; return what was written.

    Everything that can be refused is refused before the first file is written. Maps of methods that are finished are
    kept beside the results until these are written: the same command goes on where it was killed.
    """
    check_outputs(job.images, job.pages, job.files.values(), force=job.force)
    raw = read_data(job.raw, job.train, job.trajectory, job.ismrmrd)
    model = job.train.model()
    mask = load_mask(job.mask, raw.grid) if job.mask else None
    denoiser = usual_denoiser(raw.grid, load_denoiser(job.denoiser)) if job.denoiser else None
    methods = {job.method: METHODS[job.method], **(METHODS if job.compare else {})}
    kept = _kept(job)
    with stages(len(methods) + 5) as begin:
        ready = prepare_raw(raw, job.settings, model=model, mask=mask, seed=job.seed, announce=begin)
        results: dict[str, Quantified] = {}
        for name, method in methods.items():
            begin(f"reconstructing by {method.title}")
            with steps(method.n_steps) as step:
                compute = partial(quantify_prepared, ready, method, denoiser, step)
                results[method.title] = kept_maps(kept, name, raw.grid, compute)
        begin("writing maps and report")
        result = next(iter(results.values()))
        warn_of(result.notes)
        record = _record(job, result)
        fit = {"Converged": result.converged, "NIter": result.n_iter, "Message": result.message}
        sidecar = record.sidecar() | {"Fit": fit, "Versions": record.versions}
        written = write_results(_outputs(job, results, record), sidecar, force=job.force)
        kept.remove()
        return written


def weighted_name(contrast: Contrast) -> str:
    """Return the last part of the name of a computed image: `desc-synthetic_T1w`."""
    known = contrast.name in {c.name for c in DEFAULT_WEIGHTED}
    return f"desc-synthetic_{contrast.name}" if known else f"desc-{contrast.name}_weighted"


def _contrast(tr_s: float, te_s: float, ti_s: float) -> Contrast:
    """Return a contrast that is named by its times in ms."""
    times = {"TR": tr_s, "TE": te_s, **({"TI": ti_s} if ti_s else {})}
    name = "".join(f"{key}{round(1e3 * value)}" for key, value in times.items())
    return Contrast(f"{name}ms", tr_s, te_s, ti_s or None)


def _outputs(job: QuantifyJob, results: Mapping[str, Quantified], record: Record) -> list[Output]:
    """Return maps of the first result, images computed from them, and the page of all results."""
    result = next(iter(results.values()))
    weighted = {contrast: weighted_volume(result, contrast) for contrast in job.weighted}
    outputs: list[Output] = []
    for (name, (unit, text)), volume in zip(MAPS.items(), _maps(result), strict=True):
        if volume is not None:
            outputs.append(ImageOutput(job.names.image(name), volume, about={"Units": unit, "Description": text}))
    for contrast, volume in weighted.items():
        times = {"RepetitionTime": contrast.tr_s, "EchoTime": contrast.te_s, "InversionTime": contrast.ti_s}
        known = {key: value for key, value in times.items() if value is not None and value < float("inf")}
        about: dict[str, object] = {
            "Units": "arbitrary",
            "Description": "Computed from the maps, not measured",
            **known,
        }
        outputs.append(ImageOutput(job.names.image(weighted_name(contrast)), volume, about=about))
    if job.with_report:
        named = {f"{contrast.name}, computed": volume for contrast, volume in weighted.items()}
        page = build_page(quantify_report(Shown(results, named), record), "quantify.html.j2")
        outputs.append(text_output(job.names.report("quantify"), page))
    return outputs


def _maps(result: Quantified) -> tuple[Volume | None, ...]:
    """Return the maps in the order of `MAPS`."""
    pd = Volume(result.pd.data.abs(), result.pd.grid)
    return (result.t1_s, result.t2_s, pd, result.b1, result.t1_sd_s, result.t2_sd_s, result.pd_sd, result.residual)


def _kept(job: QuantifyJob) -> Kept:
    """Return where maps of finished methods are kept: they serve only the same files, options and version."""
    hashes = {role: file_sha256(path) for role, path in job.files.items()}
    methods = {name: method.settings_values() for name, method in METHODS.items()}
    purpose = [software_version(), hashes, _parameters(job), methods, job.seed]
    return Kept(job.out / f".{job.names.stem}_methods", json.dumps(purpose, default=str))


def _record(job: QuantifyJob, result: Quantified) -> Record:
    method = {"Method": job.method, "MethodSettings": METHODS[job.method].settings_values()}
    return Record(job.files, job.seed, method | _parameters(job), result.notes)


def _parameters(job: QuantifyJob) -> dict[str, object]:
    """Return what the job says, whatever the method."""
    return {
        "Settings": asdict(job.settings),
        "Train": "balanced SSFP" if job.train.balanced else "FISP",
        "OffResonance": job.train.off_resonance_hz,
        "SliceProfile": "given" if job.train.slice_profile else "uniform",
        "InversionTime": job.train.ti_s,
        "InversionEfficiency": job.train.inversion_efficiency,
        "Mask": "given" if job.mask else "found in PD",
        "Denoiser": job.denoiser.name if job.denoiser else "of mrkit",
        "Ismrmrd": asdict(job.ismrmrd),
    }
