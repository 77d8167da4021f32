"""The demo: simulate a 64 mT scan of a template brain, super-resolve it, compare with the truth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from mrcore.data.acquisition import to_json
from mrcore.data.grid import Shape3, cropped, with_spacing
from mrcore.data.volume import TissueMap, Volume
from mrcore.io.atomic import atomic_write
from mrcore.io.sidecar import finite, source_keys
from mrcore.metrics.scores import Scores, score_against, score_target, score_tissues, scores_to_json
from mrcore.segmentation.tissues import segment
from mrcore.spatial.resampling import resample
from mrkit.anatomy.template import load_template
from mrkit.files.outputs import Target, check_targets, in_space_of, write_image, write_page, write_tissues
from mrkit.files.provenance import InputFile, Record, installed_versions
from mrkit.progress import stages
from mrkit.report.pictures import mosaic_picture
from mrkit.report.report import Report, build_report
from mrkit.simulation.simulate import SimulatedScan, simulate_ulf
from mrkit.superresolution.page import NamedImage, superresolve_report
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
    target = Target(out, "demo")
    page, table, overview = out / "report.html", out / "metrics.json", out / "overview.png"
    names = ("truth", "ulf", "cubic", "sr", "residualz")
    check_targets([*map(target.image, names), *target.tissues("sr")], [page, table, overview], [], force=force)
    voxel_mm = 2.0 if quick else 1.0
    with stages(4) as begin:
        begin("simulating a 64 mT scan of the template")
        brain = template_in_scanner(voxel_mm)
        simulated = simulate_ulf(brain, preset="hyperfine-t1w", seed=seed)
        begin("super-resolving it")
        result = superresolve(simulated.scan, voxel_mm=voxel_mm, seed=seed)
        begin("scoring against the truth")
        scored = _score(simulated, result)
        record = _record(brain, simulated, result, seed, voxel_mm)
        begin("writing images and report")
        report = _page(simulated.scan, scored, result, record)
        _write(target, brain, simulated, result, scored, record, force=force)
        with atomic_write(table, force=force) as temporary:
            temporary.write_text(json.dumps(finite(_metrics(scored)), indent=2, sort_keys=True) + "\n")
        with atomic_write(overview, force=force) as temporary:
            temporary.write_bytes(_overview(report))
        return write_page(build_report(report), page, force=force)


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


@dataclass(frozen=True, eq=False)
class _Scored:
    """The truth on the grid of the result, and scores by method."""

    truth: Volume
    mask: Tensor
    images: Mapping[str, Scores]
    tissues: Mapping[str, Mapping[str, Mapping[str, float]]]


def _score(simulated: SimulatedScan, result: SuperResolved) -> _Scored:
    grid = result.image.grid
    truth = resample(simulated.truth, grid, order=1)
    prob = [resample(Volume(p, simulated.tissues.grid), grid, order=1).data for p in simulated.tissues.prob]
    tissues = TissueMap(torch.stack(prob), simulated.tissues.names, grid)
    mask = resample(Volume(simulated.mask.float(), simulated.truth.grid), grid, order=0).data > 0.5
    goal = score_target(truth, mask, tissues)
    images = {"cubic": result.cubic, "INR": result.image}
    segmented = {"cubic": segment(result.cubic, result.tissues.mask).tissues, "INR": result.tissues}
    return _Scored(
        truth,
        mask,
        {name: score_against(goal, image) for name, image in images.items()},
        {name: score_tissues(tissues, found) for name, found in segmented.items()},
    )


def _record(brain: Volume, simulated: SimulatedScan, result: SuperResolved, seed: int, voxel_mm: float) -> Record:
    source = InputFile(str(brain.meta["SourceFile"]), str(brain.meta["SourceSHA256"]), "ICBM-152 template (nilearn)")
    parameters = {"Preset": "hyperfine-t1w", "VoxelMm": voxel_mm, "NoiseSd": simulated.acquisition.noise_sd}
    return Record(
        seed=seed,
        segmenter="mrkit",
        notes=(
            *(f"simulation: {note}" for note in simulated.notes),
            *(f"super-resolution: {note}" for note in result.notes),
        ),
        inputs=(source,),
        parameters=parameters,
        versions=installed_versions(),
    )


def _page(scan: Volume, scored: _Scored, result: SuperResolved, record: Record) -> Report:
    return superresolve_report(
        scan=scan,
        cubic=result.cubic,
        images=[NamedImage("INR", result.image)],
        mask=scored.mask,
        tissues=result.tissues,
        residual_z=result.residual_z,
        record=record,
        truth=scored.truth,
        scores=scored.images,
        tissue_scores=scored.tissues,
        fit=result.solution,
        title="mrkit demo: a simulated 64 mT scan and its super-resolution",
    )


def _overview(report: Report) -> bytes:
    """Return one PNG: truth, scan, cubic and result side by side, one row per plane."""
    shown = [figure.pictures for figure in report.figures[:4]]
    return mosaic_picture(list(zip(*shown, strict=True))[:2])


def _metrics(scored: _Scored) -> dict[str, object]:
    return {
        "images": {name: scores_to_json(scores) for name, scores in scored.images.items()},
        "tissues": {name: {t: dict(v) for t, v in found.items()} for name, found in scored.tissues.items()},
    }


def _write(
    target: Target,
    brain: Volume,
    simulated: SimulatedScan,
    result: SuperResolved,
    scored: _Scored,
    record: Record,
    *,
    force: bool,
) -> None:
    sidecar: dict[str, object] = {
        **source_keys([brain.meta]),
        "Seed": record.seed,
        "Parameters": dict(record.parameters),
        "Notes": list(record.notes),
        "SkullStripped": True,
    }
    scan_keys = to_json(simulated.acquisition)
    truth = Volume(scored.truth.data, scored.truth.grid)
    for name, volume, more in (
        ("truth", truth, {}),
        ("ulf", simulated.scan, scan_keys),
        ("cubic", result.cubic, {}),
        ("sr", result.image, {"Metrics": finite(scores_to_json(scored.images["INR"]))}),
        ("residualz", result.residual_z, {"Units": "noise standard deviations"}),
    ):
        write_image(in_space_of(brain, volume), target.image(name), sidecar | more, force=force)
    write_tissues(result.tissues, target, "sr", sidecar, brain, force=force)
