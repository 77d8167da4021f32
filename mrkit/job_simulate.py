"""Simulate from files to files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mrcore.acquisition import to_json
from mrcore.brainmask import is_skull_stripped
from mrcore.io import load_volume
from mrkit.api import SimulatedScan, simulate_ulf
from mrkit.jobs import Job, Subject, input_files, read_subject
from mrkit.outputs import Provenance, check_targets, in_space_of, write_image, write_page, write_tissues
from mrkit.report import build_report
from mrkit.report_pages import Record, installed_versions, simulate_report
from mrkit.score_tables import Calibrated
from ulfsim.measure import measure
from ulfsim.plan import plan_scan, tissues_through


@dataclass(frozen=True)
class SimulateJob:
    """A simulation from files: `preset` by name, or `like` a real scan; `wm_snr` overrides the SNR of white matter."""

    common: Job
    preset: str = "hyperfine-t1w"
    like: Path | None = None
    wm_snr: float | None = None

    @property
    def files(self) -> dict[str, Path]:
        """The files that are read, by role."""
        return self.common.files | ({"like": self.like} if self.like else {})

    @property
    def images(self) -> list[Path]:
        """The images that are written."""
        target = self.common.target
        return [target.image("ulf"), target.image("truth"), *target.tissues("")]

    @property
    def pages(self) -> list[Path]:
        """The pages that are written."""
        return [self.common.target.report("ulf")] if self.common.with_report else []


def simulate_files(job: SimulateJob) -> list[Path]:
    """Simulate a scan and write scan, truth, tissues and report; return what was written.

    Everything that can be refused is refused before the first file is written.
    """
    check_targets(job.images, job.pages, job.files.values(), force=job.common.force)
    subject = read_subject(job.common)
    like = load_volume(job.like) if job.like else None
    result = simulate_ulf(
        subject.volume,
        preset=job.preset,
        like=like,
        tissues=subject.tissues,
        mask=subject.mask,
        segmenter=subject.segmenter,
        wm_snr=job.wm_snr,
        seed=job.common.seed,
    )
    return _write(job, subject, result)


def _write(job: SimulateJob, subject: Subject, result: SimulatedScan) -> list[Path]:
    target, force = job.common.target, job.common.force
    # The page comes first: should it fail, no results without a report stay behind.
    page = _page(job, subject, result) if job.common.with_report else None
    sidecar = _provenance(job, subject, result).sidecar() | {"SkullStripped": is_skull_stripped(subject.volume)}
    scan_sidecar = sidecar | to_json(result.acquisition) | {"Calibration": _calibration(result)}
    truth_sidecar = sidecar | {"Description": "The simulated object without blur and noise, in the scan's contrast"}
    written = [
        write_image(in_space_of(subject.volume, result.scan), target.image("ulf"), scan_sidecar, force=force),
        write_image(in_space_of(subject.volume, result.truth), target.image("truth"), truth_sidecar, force=force),
        *write_tissues(result.tissues, target, "", sidecar, subject.volume, force=force),
    ]
    if page is not None:
        written.append(write_page(page, target.report("ulf"), force=force))
    return written


def _provenance(job: SimulateJob, subject: Subject, result: SimulatedScan) -> Provenance:
    protocol: dict[str, object] = {"Like": job.like.name} if job.like else {"Preset": job.preset}
    tissues = {"Tissues": [path.name for path in job.common.tissues]} if job.common.tissues else {}
    parameters = {
        **protocol,
        "WmSnr": job.wm_snr,
        "Weighting": subject.weighting,
        "Segmenter": job.common.segmenter_used,
        "Mask": job.common.mask_used,
        **tissues,
    }
    return Provenance(job.files, job.common.seed, parameters, result.notes)


def _calibration(result: SimulatedScan) -> dict[str, object]:
    """Return the calibration as JSON values."""
    found = result.calibration
    return {
        "Gains": dict(found.gains),
        "BackgroundGain": found.background_gain,
        "NoiseSd": found.noise_sd,
        "TargetSnr": dict(found.target),
        "PredictedSnr": dict(found.predicted),
        "Gauge": found.gauge,
        "FeasibleInterval": list(found.feasible_interval),
        "ActiveBounds": list(found.active_bounds),
        "Scale": found.scale,
        "Warnings": list(found.warnings),
    }


def _page(job: SimulateJob, subject: Subject, result: SimulatedScan) -> str:
    plan = plan_scan(result.truth.grid, result.acquisition)
    seen = measure(result.scan, tissues_through(plan, result.tissues), result.acquisition.noise_sd)
    measured = dict(zip(seen.names, seen.snr, strict=True))
    calibrated = [
        Calibrated(f"SNR {name}", target, measured[name]) for name, target in result.calibration.target.items()
    ]
    provenance = _provenance(job, subject, result)
    record = Record(
        seed=job.common.seed,
        segmenter=job.common.segmenter_used,
        notes=result.notes,
        inputs=input_files(job.files),
        parameters=provenance.parameters,
        versions=installed_versions(),
    )
    report = simulate_report(
        source=subject.volume,
        truth=result.truth,
        scan=result.scan,
        tissues=result.tissues,
        mask=result.mask,
        calibration=calibrated,
        record=record,
    )
    return build_report(report)
