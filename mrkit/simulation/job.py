"""Simulate from files to files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from mrcore.data.acquisition import to_json
from mrcore.errors import BadInputError
from mrcore.io.sidecar import read_json, sidecar_path
from mrcore.io.tissues import load_tissues
from mrcore.segmentation.brainmask import is_skull_stripped
from mrcore.segmentation.plausibility import STATED_BESIDE, require_order
from mrkit.anatomy.finding import weighting
from mrkit.anatomy.scans import find_scans, usable_scans
from mrkit.anatomy.segmenters import ORDERS
from mrkit.anatomy.subject import Subject, read_subject
from mrkit.files.images import read_scan
from mrkit.files.job import Job, job_of
from mrkit.files.outputs import (
    FileOutput,
    ImageOutput,
    Output,
    TissueOutput,
    check_outputs,
    text_output,
    write_results,
)
from mrkit.files.provenance import Record, distinct_names
from mrkit.files.warn import warn_of
from mrkit.report.report import build_page
from mrkit.simulation.page import simulate_report
from mrkit.simulation.protocol import NO_CHANGES, Changes, Gauge, bloch_protocol
from mrkit.simulation.simulate import SimulatedScan, simulate_ulf
from ulfsim.artefacts.artefacts import NO_ARTEFACTS, Artefacts, from_json
from ulfsim.artefacts.artefacts import to_json as artefacts_to_json
from ulfsim.artefacts.draws import MILD, STRONG, ArtefactRange
from ulfsim.calibration.gains import to_json as calibration_to_json
from ulfsim.kspace_file import save_k_space
from ulfsim.protocols.presets import Preset

ARTEFACT_RANGES: Mapping[str, ArtefactRange] = MappingProxyType({"mild": MILD, "strong": STRONG})
"""Ranges by the names of the command line."""


@dataclass(frozen=True)
class SimulateJob:
    """A simulation from files.

    Attributes:
        common: what other commands share.
        preset: name of a preset; not used with `like` or `protocol`.
        like: files of real scans.
        left_out: why files in the folders of real scans are not among them.
        like_tissues: a label map or three probability maps of the one scan in `like`.
        protocol: BIDS sidecar of a sequence; needs `changes.voxel_mm` and `wm_snr`.
        field_t: field of `protocol`; by default as it says.
        tissue_table: user's relaxation times for `protocol`.
        changes: to the protocol.
        wm_snr: SNR of white matter, scaling all others.
        gauge: what fixes the gains.
        artefacts: name in ARTEFACT_RANGES, or a JSON file.
        pixel_bandwidth_hz: of the artefacts that are drawn.
        save_k_space: whether to write k-space.
    """

    common: Job
    preset: str = "hyperfine-t1w"
    like: tuple[Path, ...] = ()
    left_out: tuple[str, ...] = ()
    like_tissues: tuple[Path, ...] = ()
    protocol: Path | None = None
    field_t: float | None = None
    tissue_table: Path | None = None
    changes: Changes = NO_CHANGES
    wm_snr: float | None = None
    gauge: Gauge = Gauge.ABSOLUTE
    artefacts: str | None = None
    pixel_bandwidth_hz: float | None = None
    save_k_space: bool = False

    @property
    def files(self) -> dict[str, Path]:
        """The files that are read, by role."""
        several = len(self.like) > 1
        likes = {f"like {n}" if several else "like": path for n, path in enumerate(self.like, start=1)}
        files = self.common.files | likes
        files |= {f"tissues of like {n}": path for n, path in enumerate(self.like_tissues, start=1)}
        others = {"protocol": self.protocol, "tissue table": self.tissue_table, "artefacts": self.artefact_file}
        return files | {role: path for role, path in others.items() if path is not None}

    @property
    def artefact_file(self) -> Path | None:
        """The file of artefacts, where it is not a name."""
        return None if self.artefacts is None or self.artefacts in ARTEFACT_RANGES else Path(self.artefacts)

    @property
    def images(self) -> list[Path]:
        """The images that are written."""
        names = self.common.names
        return [names.image("ulf"), names.image("truth"), *names.tissues("")]

    @property
    def k_space_file(self) -> Path:
        """Where k-space goes."""
        return self.common.names.file("ulf_kspace.npz")

    @property
    def others(self) -> list[Path]:
        """The further files that are written: page and k-space."""
        page = [self.common.names.report("ulf")] if self.common.with_report else []
        return page + [self.k_space_file, sidecar_path(self.k_space_file)] * self.save_k_space


def job_of_simulation(arguments: argparse.Namespace) -> SimulateJob:
    """Return the job that the arguments of `mrkit simulate` describe."""
    changes = Changes(
        voxel_mm=tuple(arguments.voxel) if arguments.voxel else None,
        slice_thickness_mm=arguments.slice_thickness,
        slice_axis=arguments.slice_axis,
        tilt_deg=tuple(arguments.tilt) if arguments.tilt else None,
        noise_fwhm_mm=tuple(arguments.noise_fwhm) if arguments.noise_fwhm else None,
        n_channels=arguments.channels,
        snr=dict(arguments.target_snr) if arguments.target_snr else None,
    )
    references = [_references(place) for place in arguments.like or ()]
    return SimulateJob(
        common=job_of(arguments),
        preset=arguments.preset,
        like=tuple(path for paths, _ in references for path in paths),
        left_out=tuple(text for _, texts in references for text in texts),
        like_tissues=tuple(arguments.like_tissues or ()),
        protocol=arguments.protocol,
        field_t=arguments.field,
        tissue_table=arguments.tissue_table,
        changes=changes,
        wm_snr=arguments.wm_snr,
        gauge=Gauge(arguments.gauge),
        artefacts=arguments.artefacts,
        pixel_bandwidth_hz=arguments.pixel_bandwidth,
        save_k_space=arguments.k_space,
    )


def _references(place: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Return the real scans in a folder that can be used, and why others were left out; a single file must do."""
    scans = find_scans(place, "--like")
    if not place.is_dir():
        return (place,), ()
    usable, left_out = usable_scans(scans, "--like")
    return tuple(scan.path for scan in usable), left_out


def simulate_files(job: SimulateJob) -> list[Path]:
    """Simulate a scan and write scan, truth, tissues, k-space and report; return what was written.

    Everything that can be refused is refused before the first file is written.
    """
    check_outputs(job.images, job.others, job.files.values(), force=job.common.force)
    preset = _preset(job)
    artefacts = _artefacts(job)
    like = [read_scan(path) for path in job.like]
    like_tissues = [load_tissues(job.like_tissues)] if job.like_tissues else []
    for scan, tissues in zip(like, like_tissues, strict=False):
        require_order(scan, tissues, ORDERS[weighting(scan)], "the tissues given for --like", STATED_BESIDE)
    subject = read_subject(job.common)
    result = simulate_ulf(
        subject.volume,
        preset=preset,
        like=like,
        like_tissues=like_tissues,
        changes=job.changes,
        wm_snr=job.wm_snr,
        gauge=job.gauge,
        artefacts=artefacts,
        pixel_bandwidth_hz=job.pixel_bandwidth_hz,
        tissues=subject.tissues,
        mask=subject.mask,
        segmenter=subject.segmenter,
        seed=job.common.seed,
    )
    warn_of(result.notes)
    record = _record(job, subject, result)
    outputs = _outputs(job, subject, result)
    if job.common.with_report:
        page = build_page(simulate_report(subject.volume, result, record))
        outputs.append(text_output(job.common.names.report("ulf"), page))
    sidecar = record.sidecar() | {"SkullStripped": is_skull_stripped(subject.volume)}
    return write_results(outputs, sidecar, force=job.common.force)


def _preset(job: SimulateJob) -> str | Preset:
    if job.protocol is None:
        unused = {"--field": job.field_t, "--tissue-table": job.tissue_table}
        if given := [name for name, value in unused.items() if value is not None]:
            raise BadInputError(f"{' and '.join(given)} change a contrast by the Bloch equations; give --protocol too")
        return job.preset
    if job.changes.voxel_mm is None or job.wm_snr is None:
        raise BadInputError(
            "--protocol says how a sequence weights tissues, not what a scanner delivers: give --voxel and --wm-snr too"
        )
    return bloch_protocol(job.protocol, job.field_t, job.changes.voxel_mm, job.wm_snr, job.tissue_table)


def _artefacts(job: SimulateJob) -> Artefacts | ArtefactRange:
    if job.artefacts is None:
        return NO_ARTEFACTS
    path = job.artefact_file
    if path is None:
        return ARTEFACT_RANGES[job.artefacts]
    values = read_json(path)
    block = values.get("Artefacts", values)
    if not isinstance(block, Mapping):
        raise BadInputError(f"{path}: 'Artefacts' must hold one block per artefact, got {type(block).__name__}")
    return from_json(block)


def _outputs(job: SimulateJob, subject: Subject, result: SimulatedScan) -> list[Output]:
    names, source = job.common.names, subject.volume
    about_scan = to_json(result.acquisition) | {
        "Calibration": calibration_to_json(result.calibration),
        "Artefacts": artefacts_to_json(result.simulation.artefacts),
    }
    about_truth = {"Description": "The simulated object without blur and noise, in the scan's contrast"}
    outputs: list[Output] = [
        ImageOutput(names.image("ulf"), result.scan, source, about_scan),
        ImageOutput(names.image("truth"), result.truth, source, about_truth),
        TissueOutput(names, "", result.tissues, source),
    ]
    if job.save_k_space:
        outputs.append(FileOutput(job.k_space_file, lambda to, force: save_k_space(result.simulation, to, force=force)))
    return outputs


def _record(job: SimulateJob, subject: Subject, result: SimulatedScan) -> Record:
    protocol: dict[str, object] = {"Preset": job.preset}
    if job.like or job.protocol:
        protocol = {"Like": list(distinct_names(job.like).values()), "Protocol": job.protocol and job.protocol.name}
    tissues = {"Tissues": [path.name for path in job.common.tissues]} if job.common.tissues else {}
    parameters = {
        **protocol,
        "Changes": {name: value for name, value in vars(job.changes).items() if value is not None},
        "WmSnr": job.wm_snr,
        "Gauge": job.gauge.value,
        "Artefacts": job.artefacts,
        **({} if job.pixel_bandwidth_hz is None else {"PixelBandwidthHz": job.pixel_bandwidth_hz}),
        "Weighting": subject.weighting,
        "Segmenter": job.common.segmenter_used,
        "Mask": job.common.mask_used,
        **tissues,
    }
    return Record(job.files, job.common.seed, parameters, (*job.left_out, *result.notes), job.common.segmenter_used)
