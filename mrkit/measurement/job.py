"""Measure one scan from its file; write what was found, the tissues it rests on, and a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mrcore.io.sidecar import sidecar_path, write_sidecar
from mrkit.anatomy.subject import read_subject
from mrkit.files.job import Job
from mrkit.files.outputs import FileOutput, Output, TissueOutput, check_outputs, text_output, write_results
from mrkit.files.provenance import Record
from mrkit.files.warn import warn_of
from mrkit.measurement.measure import measure
from mrkit.measurement.measured import Measured, as_values
from mrkit.measurement.page import measure_page


def measure_file(job: Job) -> Measured:
    """Read the scan, find its tissues, and measure it.

    Raises:
        BadInputError: a file that cannot be used, a brain or tissues that cannot be found.
        GridMismatchError: mask or tissues on another grid.
        MissingExtraError: the segmenter or the masker is not installed.
    """
    subject = read_subject(job)
    found = measure(
        subject.volume,
        mask=subject.mask,
        tissues=subject.tissues,
        segmenter=subject.segmenter,
        weighting=subject.weighting,
    )
    warn_of(found.notes)
    return replace(found, name=str(job.image))


def measure_to_folder(job: Job) -> tuple[Measured, list[Path]]:
    """Measure the scan of `job`, write table, tissues and page into its folder, and return what was written.

    Everything that can be refused is refused before the first file is written.

    Raises:
        BadInputError: as `measure_file`, or a result that exists and `force` is off.
    """
    names = job.names
    table, page = names.file("measure.json"), names.file("measure.html")
    check_outputs(names.tissues(""), [table, page], job.files.values(), force=job.force)
    found = measure_file(job)
    record = Record(job.files, None, _parameters(job, found), found.notes, job.segmenter_used)
    sidecar = record.sidecar()
    # The name alone: a table must not depend on where the scan lay; its notes are among the values.
    values = as_values(found) | {"image": job.image.name} | {key: sidecar[key] for key in sidecar if key != "Notes"}
    outputs: list[Output] = [
        TissueOutput(names, "", found.tissues, found.volume),
        FileOutput(sidecar_path(table), lambda _, force: write_sidecar(table, values, force=force)),
        text_output(page, measure_page(found, record)),
    ]
    return found, write_results(outputs, sidecar, force=job.force)


def _parameters(job: Job, found: Measured) -> dict[str, object]:
    tissues = {"Tissues": [path.name for path in job.tissues]} if job.tissues else {}
    return {"Weighting": found.weighting, "Segmenter": job.segmenter_used, "Mask": job.mask_used, **tissues}
