"""The demo: simulate a 64 mT scan of a template brain, super-resolve it, compare with the truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch

from mrcore.data.acquisition import to_json
from mrcore.data.grid import Shape3, cropped, with_spacing
from mrcore.data.volume import TissueMap, Volume
from mrcore.io.sidecar import finite
from mrcore.metrics.scores import score_against, score_target, score_tissues, scores_to_json
from mrcore.segmentation.tissues import segment
from mrcore.spatial.resampling import resample
from mrkit.anatomy.template import load_template, template_file
from mrkit.files.outputs import (
    ImageOutput,
    Output,
    OutputNames,
    TissueOutput,
    bytes_output,
    check_outputs,
    json_output,
    text_output,
    write_results,
)
from mrkit.files.provenance import Record
from mrkit.progress import stages
from mrkit.report.pictures import mosaic_picture
from mrkit.report.report import Report, build_page
from mrkit.simulation.simulate import SimulatedScan, simulate_ulf
from mrkit.superresolution.page import Truth, superresolve_report
from mrkit.superresolution.superresolve import SuperResolved, superresolve

FIELD_OF_VIEW_MM: Shape3 = (176, 224, 200)
"""Whole voxels of the scan (1.6 x 1.6 x 5 mm) and of the result (1 and 2 mm), close to those of real exports."""


def run_demo(out: Path, *, seed: int = 1, quick: bool = False, force: bool = False) -> Path:
    """Write the demo's images, metrics and page to `out`; return the page.

    `quick` works at 2 mm instead of 1 mm.

    Raises:
        BadInputError: results exist and `force` is off.
        MissingExtraError: nilearn, which carries the template, is not installed.
    """
    names = OutputNames(out, "demo")
    page, table, overview = out / "report.html", out / "metrics.json", out / "overview.png"
    kinds = ("truth", "ulf", "cubic", "sr", "residualz")
    check_outputs([*map(names.image, kinds), *names.tissues("sr")], [page, table, overview], [], force=force)
    voxel_mm = 2.0 if quick else 1.0
    with stages(4) as begin:
        begin("simulating a 64 mT scan of the template")
        brain = template_in_scanner(voxel_mm)
        simulated = simulate_ulf(brain, preset="hyperfine-t1w", seed=seed)
        begin("super-resolving it")
        result = superresolve(simulated.scan, voxel_mm=voxel_mm, seed=seed)
        begin("scoring against the truth")
        truth = _score(simulated, result)
        record = _record(simulated, result, seed, voxel_mm)
        begin("writing images and report")
        title = "mrkit demo: a simulated 64 mT scan and its super-resolution"
        report = superresolve_report([simulated.scan], ["T1w"], result, record, truth, title)
        outputs: list[Output] = [
            *_images(names, brain, simulated, result, truth),
            TissueOutput(names, "sr", result.tissues, brain),
            json_output(table, _metrics(truth), sort_keys=True),
            bytes_output(overview, _overview(report)),
            text_output(page, build_page(report)),
        ]
        write_results(outputs, record.sidecar() | {"SkullStripped": True}, force=force)
        return page


def template_in_scanner(voxel_mm: float) -> Volume:
    """Return the template's T1 in the scanner's field of view, at 1 mm exactly, else interpolated."""
    template = load_template()
    at = torch.nonzero(template.mask)
    low, high = at.amin(0), at.amax(0)
    start = [(int(a) + int(b) + 1 - n) // 2 for a, b, n in zip(low, high, FIELD_OF_VIEW_MM, strict=True)]
    grid = cropped(template.t1.grid, cast("Shape3", tuple(start)), FIELD_OF_VIEW_MM)
    if voxel_mm != 1.0:
        grid = with_spacing(grid, (voxel_mm, voxel_mm, voxel_mm))
    placed = resample(template.t1, grid, order=1)
    return Volume(placed.data.clamp_min(0), grid, {**template.t1.meta, "SkullStripped": True})


def _score(simulated: SimulatedScan, result: SuperResolved) -> Truth:
    """Return the truth on the grid of the result, and scores by method."""
    grid = result.image.grid
    truth = resample(simulated.truth, grid, order=1)
    prob = [resample(Volume(p, simulated.tissues.grid), grid, order=1).data for p in simulated.tissues.prob]
    tissues = TissueMap(torch.stack(prob), simulated.tissues.names, grid)
    mask = resample(Volume(simulated.mask.float(), simulated.truth.grid), grid, order=0).data > 0.5
    goal = score_target(truth, mask, tissues)
    images = {"cubic": result.cubic, "INR": result.image}
    segmented = {"cubic": segment(result.cubic, result.tissues.mask).tissues, "INR": result.tissues}
    return Truth(
        truth,
        mask,
        {name: score_against(goal, image) for name, image in images.items()},
        {name: score_tissues(tissues, found) for name, found in segmented.items()},
    )


def _record(simulated: SimulatedScan, result: SuperResolved, seed: int, voxel_mm: float) -> Record:
    parameters = {"Preset": "hyperfine-t1w", "VoxelMm": voxel_mm, "NoiseSd": simulated.acquisition.noise_sd}
    notes = (
        *(f"simulation: {note}" for note in simulated.notes),
        *(f"super-resolution: {note}" for note in result.notes),
    )
    return Record({"ICBM-152 template (nilearn)": template_file()}, seed, parameters, notes, "mrkit")


def _overview(report: Report) -> bytes:
    """Return one PNG: truth, scan, cubic and result side by side, one row per plane."""
    shown = [figure.pictures for figure in report.figures[:4]]
    return mosaic_picture(list(zip(*shown, strict=True))[:2])


def _metrics(truth: Truth) -> dict[str, object]:
    return {
        "images": {name: scores_to_json(scores) for name, scores in truth.scores.items()},
        "tissues": {name: {t: dict(v) for t, v in found.items()} for name, found in truth.tissue_scores.items()},
    }


def _images(
    names: OutputNames, brain: Volume, simulated: SimulatedScan, result: SuperResolved, truth: Truth
) -> list[ImageOutput]:
    """Return the images, each with what its sidecar says of it alone."""
    shown: dict[str, tuple[Volume, Mapping[str, object]]] = {
        "truth": (Volume(truth.image.data, truth.image.grid), {}),
        "ulf": (simulated.scan, to_json(simulated.acquisition)),
        "cubic": (result.cubic, {}),
        "sr": (result.image, {"Metrics": finite(scores_to_json(truth.scores["INR"]))}),
        "residualz": (result.residual_z, {"Units": "noise standard deviations"}),
    }
    return [ImageOutput(names.image(name), volume, brain, about) for name, (volume, about) in shown.items()]
