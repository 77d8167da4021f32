"""The reports of the two main verbs: super-resolution and simulation."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata

import torch
from torch import Tensor

from mrcore.grid import Grid
from mrcore.metrics import Scores
from mrcore.solve import Solution
from mrcore.volume import TissueMap, Volume
from mrkit.comparison import Comparison
from mrkit.comparison_page import comparison_figures, comparison_table
from mrkit.curves import Curve
from mrkit.pictures import Window, sections, window_of
from mrkit.report import Fact, Figure, InputFile, Report
from mrkit.report_figures import grey_figure, signed_figure, tissue_figure
from mrkit.score_tables import (
    Calibrated,
    calibration_table,
    contrast_table,
    gains_table,
    score_tables,
    tissue_table,
)
from mrkit.trust import Trust, residual_whiteness
from mrkit.trust_page import trust_figures, whiteness_plot, whiteness_table
from ulfsim.calibrate import Calibration

_WORLD = "Planes cut the brain's middle (the sagittal one 10 mm to its right) and are the same in every row. "
RESIDUAL_LIMIT_Z = 4.0


@dataclass(frozen=True, eq=False)
class Record:
    """How a result came about, as its report tells it.

    Attributes:
        seed: of all randomness.
        segmenter: name of what made the tissue maps, with its version where it has one.
        seconds: run time; None leaves it out, so that a report can be the same twice.
        notes: warnings and remarks, shown before the pictures.
        inputs: files that were read.
        parameters: all settings.
        versions: of the programs that took part.
    """

    seed: int
    segmenter: str
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    inputs: tuple[InputFile, ...] = ()
    parameters: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class NamedImage:
    """An image of one method, and a sentence on what that method does."""

    name: str
    volume: Volume
    text: str = "Fitted to the scan through its forward model."


def installed_versions() -> dict[str, str]:
    """Return the versions of Python, mrkit and the libraries that its numbers depend on."""
    found = {"python": platform.python_version()}
    for name in ("mrkit", "torch", "numpy", "scipy", "nibabel", "scikit-image"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def superresolve_report(
    *,
    scan: Volume,
    cubic: Volume,
    images: Sequence[NamedImage],
    mask: Tensor,
    tissues: TissueMap,
    residual_z: Volume,
    record: Record,
    truth: Volume | None = None,
    scores: Mapping[str, Scores] | None = None,
    tissue_scores: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
    fit: Solution | None = None,
    trust: Trust | None = None,
    comparison: Comparison | None = None,
    title: str = "Super-resolution of an ultra-low-field scan",
    radiological: bool = True,
) -> Report:
    """Compose the report of a super-resolution.

    Args:
        scan: the ultra-low-field scan, on its own grid.
        cubic: its cubic interpolation, on the output grid.
        images: of the methods, on the output grid, the main result first.
        mask: brain, bool, on the output grid.
        tissues: of the main result, on the output grid.
        residual_z: (scan - prediction) / noise sd, on the scan's grid.
        record: seed, notes, inputs and parameters.
        truth: noise-free object in the scan's contrast, where it is known; without it only contrast is compared.
        scores: of `cubic` and `images` by name, where there is a truth.
        tissue_scores: `score_tissues` by method.
        fit: of the main result; its history is drawn.
        trust: of the main result: its maps are shown.
        comparison: of all methods on this scan.
        title: of the page.
        radiological: whether the patient's left is on the right of the pictures.
    """
    main_name, main = images[0].name, images[0].volume
    planes = sections(main.grid, mask, radiological=radiological)
    reference, of = (truth, "the truth") if truth is not None else (main, main_name)
    window = window_of(reference, mask)
    said = f"Window {window.low:.3g} to {window.high:.3g}: 0.5th and 99.5th percentile of {of} in the brain."
    figures: list[Figure] = []
    if truth is not None:
        figures.append(
            grey_figure("Truth", f"The object without noise, in the scan's contrast. {said}", truth, planes, window)
        )
    figures += [
        grey_figure(
            "ULF scan", f"As measured, voxels of {size_text(scan.grid)} shown as they are.", scan, planes, window
        ),
        grey_figure("Cubic", "Cubic interpolation of the scan: no model, no prior.", cubic, planes, window),
        *(grey_figure(i.name, i.text, i.volume, planes, window, focus=i is images[0]) for i in images),
        tissue_figure("Segmentation", f"Tissues of {main_name}, by {record.segmenter}.", tissues, planes, main, window),
    ]
    if truth is not None:
        limit = 0.3 * (window.high - window.low)
        for name, image in {"cubic": cubic, main_name: main}.items():
            error = Volume(torch.where(mask, image.data - truth.data, 0.0), image.grid)
            figures.append(
                signed_figure(f"Error of {name}", "Image minus truth, in the brain.", error, planes, limit, "")
            )
    figures.append(
        signed_figure(
            "Residual",
            "Scan minus the prediction from the result, in units of the noise. Structure here is signal that was "
            "missed; noise alone looks like sand.",
            residual_z,
            planes,
            RESIDUAL_LIMIT_Z,
            " sd",
        )
    )
    if trust is not None:
        figures += trust_figures(trust, planes, mask)
    if comparison is not None:
        figures += comparison_figures(comparison, planes, window)
    tables = list(score_tables(scores or {}))
    if truth is None:
        tables.append(contrast_table({"Cubic": cubic, **{i.name: i.volume for i in images}}, tissues, mask))
    if tissue_scores:
        tables.append(tissue_table(tissue_scores))
    if comparison is not None:
        tables.append(comparison_table(comparison))
    found = residual_whiteness(residual_z, Volume(mask.float(), main.grid))
    if found is not None:
        tables.append(whiteness_table(found))
    return Report(
        title=title,
        summary=(
            f"A scan with voxels of {size_text(scan.grid)} was brought to {size_text(main.grid)} by fitting this "
            f"subject's own image through a model of the acquisition. {orientation_text(radiological)}"
        ),
        facts=(
            Fact("Scan", f"{size_text(scan.grid)}, {_shape(scan.grid)}"),
            Fact("Result", f"{size_text(main.grid)}, {_shape(main.grid)}"),
            *record_facts(record),
        ),
        notes=record.notes,
        figures=tuple(figures),
        planes=tuple(plane.name for plane in planes),
        tables=tuple(tables),
        curves=history_curves(fit),
        plots=() if found is None else (whiteness_plot(found),),
        parameters={"seed": record.seed, **record.parameters},
        inputs=record.inputs,
        versions=record.versions,
    )


def simulate_report(
    *,
    source: Volume,
    truth: Volume,
    scan: Volume,
    tissues: TissueMap,
    mask: Tensor,
    calibrated: Sequence[Calibrated],
    calibration: Calibration,
    record: Record,
    title: str = "Simulated ultra-low-field scan",
    radiological: bool = True,
) -> Report:
    """Compose the report of a simulation.

    Args:
        source: the high-field scan.
        truth: the same object in the ultra-low-field contrast, without noise, on the grid of `tissues`.
        scan: the simulated scan, on its own grid.
        tissues: of the high-field scan, with which its contrast was changed.
        mask: brain, bool, on the grid of `tissues`.
        calibrated: targets and what was measured in `scan`.
        calibration: gains, and how well determined they are.
        record: seed, notes, inputs and parameters.
        title: of the page.
        radiological: whether the patient's left is on the right of the pictures.
    """
    planes = sections(tissues.grid, mask, radiological=radiological)
    window = window_of(truth, mask)
    own = window_of(source, mask) if source.grid.matches(tissues.grid) else _plain_window(source)
    return Report(
        title=title,
        summary=(
            f"A high-field scan with voxels of {size_text(source.grid)} was given the contrast, the voxels of "
            f"{size_text(scan.grid)} and the noise of an ultra-low-field scan. {orientation_text(radiological)}"
        ),
        facts=(
            Fact("High field", f"{size_text(source.grid)}, {_shape(source.grid)}"),
            Fact("Simulated", f"{size_text(scan.grid)}, {_shape(scan.grid)}"),
            *record_facts(record),
        ),
        notes=record.notes,
        figures=(
            grey_figure("High field", f"The input; window {own.low:.3g} to {own.high:.3g}.", source, planes, own),
            grey_figure(
                "ULF contrast",
                f"The same object as the low field would show it without blur and noise; window {window.low:.3g} to "
                f"{window.high:.3g}, as below.",
                truth,
                planes,
                window,
            ),
            grey_figure(
                "Simulated scan",
                f"Voxels of {size_text(scan.grid)} shown as they are.",
                scan,
                planes,
                window,
                focus=True,
            ),
            tissue_figure("Tissues", f"By {record.segmenter}; each has its own gain.", tissues, planes, truth, window),
        ),
        planes=tuple(plane.name for plane in planes),
        tables=(calibration_table(calibrated), gains_table(calibration)),
        parameters={"seed": record.seed, **record.parameters},
        inputs=record.inputs,
        versions=record.versions,
    )


def record_facts(record: Record) -> tuple[Fact, ...]:
    """Return segmenter, seed and run time."""
    seconds = () if record.seconds is None else (Fact("Run time", _duration(record.seconds)),)
    return (Fact("Segmenter", record.segmenter), Fact("Seed", str(record.seed)), *seconds)


def history_curves(fit: Solution | None) -> tuple[Curve, ...]:
    """Return the objective over the iterations, where there was a fit."""
    values = tuple(float(v) for v in fit.history if math.isfinite(v)) if fit is not None else ()
    if fit is None or not values:
        return ()
    ending = "converged" if fit.converged else "stopped before convergence"
    return (Curve(f"Objective of the fit: {ending}, {fit.message}", "iteration", "objective", values),)


def _plain_window(volume: Volume) -> Window:
    return window_of(volume, volume.data > volume.data.min())


def orientation_text(radiological: bool = True) -> str:
    """Say where the planes lie and which side is left."""
    side = "radiological: the patient's left is on the right" if radiological else "neurological: left is left"
    return f"{_WORLD}The convention is {side}."


def size_text(grid: Grid) -> str:
    """Return the voxel size for a reader."""
    sizes = [f"{s:.3g}" for s in grid.spacing_mm]
    return f"{sizes[0]} mm" if len(set(sizes)) == 1 else " \N{MULTIPLICATION SIGN} ".join(sizes) + " mm"


def _shape(grid: Grid) -> str:
    return " \N{MULTIPLICATION SIGN} ".join(str(n) for n in grid.shape) + f" {grid.orientation}"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60)} s"
