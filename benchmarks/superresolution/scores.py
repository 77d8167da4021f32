"""What a method's result is worth: rows of image scores, tissues and contrast, and cost; means and gains over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from common.results import Cost, Row, measured

from mrcore.data.volume import TissueMap, Volume
from mrcore.metrics.overlap import CORE_PROBABILITY
from mrcore.metrics.scores import score_against, score_tissues
from mrcore.segmentation.tissues import segment
from superresolution.scene import Scene
from superresolution.volumes import volume_rows

if TYPE_CHECKING:
    from superresolution.methods import Method, Result

IMAGES, TISSUES, COSTS = "Images", "Tissues and contrast", "Costs"
MEANS, GAINS, NOTES = "Means", "Method minus TV + Hessian, means (positive: better)", "Notes"
TRUTH, PREPARATION = "(truth, segmented alike)", "(preparation, shared)"
REGIONS = ("whole", "inside")
SCORES: Mapping[str, tuple[str, int]] = {
    "psnr_db": ("PSNR dB", 1),
    "ssim": ("SSIM", 1),
    "nrmse": ("NRMSE", -1),
    "gradient_error": ("gradient error", -1),
    "edge_f1_0": ("F1@0", 1),
    "edge_f1_1": ("F1@1", 1),
}
"""Scores by their fields: the column's name, and the sign of what is better."""
COLUMNS = tuple(f"{column} {region}" for column, _ in SCORES.values() for region in REGIONS)
CONDITION = ("WM SNR", "scan")
RATIO, SPREAD, DICE = "Michelson to truth", "sd in WM to truth", "mean Dice"
"""The spread inside WM tells contrast that is bought with noise."""


def examined(
    scene: Scene, method: Method, seed: int, keep: Callable[[str, Volume], None] = lambda name, image: None
) -> list[Row]:
    """Run a method on a scene and return all its rows; `keep` is handed the image, for pictures."""
    with measured() as cost:
        result = method.run(scene, seed)
    keep(method.name, result.image)
    found = {method.name: segment(result.image, scene.extent).tissues}
    if result.tissues is not None:
        found[f"{method.name}, own tissues"] = result.tissues
    return [
        *_image_rows(scene, method.name, result.image),
        *(_tissue_row(scene, name, tissues) for name, tissues in found.items()),
        *_volume_rows(scene, found),
        _cost_row(scene, method.name, cost, result),
    ]


def examined_truth(scene: Scene) -> list[Row]:
    """Return what segmenting the truth scores, the cost of the preparation and the remarks on a scene."""
    goal = scene.goal
    # The truth has its own mask: that of a scan is wider, and holds the zeros around the truth.
    found = segment(goal.reference, goal.mask).tissues
    notes = [{"table": NOTES, **scene.case.labels(), "note": note} for note in scene.notes]
    truth = {TRUTH: found}
    return [
        _tissue_row(scene, TRUTH, found),
        *_volume_rows(scene, truth),
        _cost_row(scene, PREPARATION, scene.preparation, None),
        *notes,
    ]


def _image_rows(scene: Scene, method: str, image: Volume) -> Iterator[Row]:
    scores = score_against(scene.goal, image)
    row: dict[str, object] = {"table": IMAGES, **scene.case.labels(), "method": method}
    for name, (column, _) in SCORES.items():
        row |= {f"{column} {region}": getattr(getattr(scores, region), name) for region in REGIONS}
    row |= {"MSLC": scores.mslc, "MSLC of truth": scores.reference_mslc}
    if scores.contrast is not None and scores.reference_contrast is not None:
        row |= {"Michelson WM-GM": scores.contrast.michelson, "of truth": scores.reference_contrast.michelson}
        row |= {RATIO: scores.contrast.michelson / scores.reference_contrast.michelson}
    white = None if scene.goal.tissues is None else scene.goal.tissues.of("WM") > CORE_PROBABILITY
    if white is not None and bool(white.any()):
        row[SPREAD] = float(image.data[white].std() / scene.goal.reference.data[white].std())
    yield row


def _tissue_row(scene: Scene, method: str, tissues: TissueMap) -> Row:
    reference = scene.goal.tissues
    if reference is None:
        return {"table": TISSUES, **scene.case.labels(), "method": method}
    found = score_tissues(reference, tissues)
    dice = {f"Dice {name}": values["dice"] for name, values in found.items()}
    volumes = {f"volume error {name} %": 100 * values["volume_error_relative"] for name, values in found.items()}
    mean = sum(dice.values()) / len(dice)
    return {"table": TISSUES, **scene.case.labels(), "method": method, **dice, DICE: mean, **volumes}


def _volume_rows(scene: Scene, found: Mapping[str, TissueMap]) -> list[Row]:
    if scene.labels is None or scene.goal.tissues is None:
        return []
    return volume_rows(scene.labels, scene.goal.tissues, found, scene.case.labels())


def _cost_row(scene: Scene, method: str, cost: Cost, result: Result | None) -> Row:
    row = {"table": COSTS, **scene.case.labels(), "method": method, "seconds": cost.seconds}
    row |= {"CPU seconds": cost.cpu_seconds, "peak MiB": cost.peak_mib, "threads": torch.get_num_threads()}
    if result is not None and result.settled is not None:
        row |= {"settled": result.settled}
    return {**row, "note": result.note} if result is not None and result.note else row


def value(row: Row, column: str) -> float:
    """Return a figure of a row."""
    return float(str(row[column]))


def means_of(rows: Sequence[Row]) -> list[Row]:
    """Return the means over brains (each over its seeds), a row a condition and method, and of how many scans."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if row["table"] in (IMAGES, TISSUES):
            groups.setdefault((*(row[k] for k in CONDITION), row["method"]), []).append(row)
    out = []
    for (snr, scan, method), members in groups.items():
        row: dict[str, object] = {"table": MEANS, "WM SNR": snr, "scan": scan, "method": method}
        row["scans"] = max(sum(m["table"] == table for m in members) for table in (IMAGES, TISSUES))
        for column in (*COLUMNS, "MSLC", RATIO, SPREAD, DICE):
            figures = [(m["brain"], value(m, column)) for m in members if column in m]
            row |= {column: mean_over_brains(figures)} if figures else {}
        out.append(row)
    return out


def difference(
    rows: Sequence[Row], table: str, column: str, method: str, other: str, condition: tuple[float, str]
) -> tuple[float | None, int]:
    """Return the mean of `method` minus `other` in a column over the scans of a condition that both have (None: none).

    The mean is that over brains. The second is of how many scans.
    """
    chosen = [r for r in rows if r["table"] == table and (r["WM SNR"], r["scan"]) == condition and column in r]
    by_scan: dict[tuple[object, object], dict[object, float]] = {}
    for row in chosen:
        by_scan.setdefault((row["brain"], row["seed"]), {})[row["method"]] = value(row, column)
    both = {scan: pair for scan, pair in by_scan.items() if method in pair and other in pair}
    found = [(brain, pair[method] - pair[other]) for (brain, _), pair in both.items()]
    return (mean_over_brains(found) if found else None), len(found)


def mean_over_brains(figures: Sequence[tuple[object, float]]) -> float:
    """Return the mean of figures (brain, value) over brains: one that was scanned more often counts no more."""
    by_brain: dict[object, list[float]] = {}
    for brain, figure in figures:
        by_brain.setdefault(brain, []).append(figure)
    means = [sum(own) / len(own) for own in by_brain.values()]
    return sum(means) / len(means)


def gains_of(rows: Sequence[Row], other: str) -> Iterator[Row]:
    """Yield what each method gains over `other` in each condition: means over the scans that both have."""
    images = [row for row in rows if row["table"] == IMAGES]
    for snr, scan in dict.fromkeys((value(row, "WM SNR"), str(row["scan"])) for row in images):
        for method in dict.fromkeys(str(row["method"]) for row in images):
            gain: dict[str, object] = {"table": GAINS, "WM SNR": snr, "scan": scan, "method": method}
            for column, sign in SCORES.values():
                for region in REGIONS:
                    name = f"{column} {region}"
                    found, n_scans = difference(images, IMAGES, name, method, other, (snr, scan))
                    if found is not None:
                        gain |= {"scans": n_scans, name: sign * found}
            if method != other and "scans" in gain:
                yield gain
