"""The report of a simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mrcore.data.volume import Volume
from mrkit.files.provenance import Record
from mrkit.report.figures import grey_figure, tissue_figure
from mrkit.report.pictures import Window, sections, window_of
from mrkit.report.report import Better, Column, Fact, Report, Row, Table
from mrkit.report.words import orientation_text, record_facts, shape_text, size_text
from mrkit.simulation.simulate import SimulatedScan
from ulfsim.calibration.gains import Calibration
from ulfsim.measurement.contrast import measure, pairs


def simulate_report(source: Volume, result: SimulatedScan, record: Record) -> Report:
    """Compose the report of the `result` of a simulation of `source`, the high-field scan."""
    truth, scan, tissues, mask = result.truth, result.scan, result.tissues, result.mask
    planes = sections(tissues.grid, mask)
    window = window_of(truth, mask)
    own = window_of(source, mask) if source.grid.matches(tissues.grid) else _plain_window(source)
    return Report(
        title="Simulated ultra-low-field scan",
        summary=(
            f"A high-field scan with voxels of {size_text(source.grid)} was given the contrast, the voxels of "
            f"{size_text(scan.grid)} and the noise of an ultra-low-field scan. {orientation_text()}"
        ),
        record=record,
        facts=(
            Fact("High field", f"{size_text(source.grid)}, {shape_text(source.grid)}"),
            Fact("Simulated", f"{size_text(scan.grid)}, {shape_text(scan.grid)}"),
            *record_facts(record),
        ),
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
        tables=(calibration_table(calibrated_quantities(result)), gains_table(result.calibration)),
    )


def _plain_window(volume: Volume) -> Window:
    return window_of(volume, volume.data > volume.data.min())


@dataclass(frozen=True)
class Calibrated:
    """A quantity that a simulation was calibrated to: what was asked for, and what the result shows."""

    name: str
    target: float
    measured: float


def calibrated_quantities(result: SimulatedScan) -> list[Calibrated]:
    """Return the SNR of each tissue and the CNR of each pair: what was asked for, and what the scan shows."""
    seen = measure(result.scan, result.scan_tissues, result.acquisition.noise_sd)
    measured = dict(zip(seen.names, seen.snr, strict=True))
    target = result.preset.snr
    snr = [Calibrated(f"SNR {name}", value, measured[name]) for name, value in target.items()]
    return snr + [Calibrated(f"CNR {a}-{b}", target[a] - target[b], seen.cnr(a, b)) for a, b in pairs(seen.names)]


def calibration_table(quantities: Sequence[Calibrated]) -> Table:
    """Return the table of targets and measured values of a simulation."""
    columns = (
        Column("Target", "", Better.NEITHER, 2, "What the simulation was calibrated to."),
        Column("Measured", "", Better.NEITHER, 2, "The same quantity, measured in the simulated scan."),
        Column("Difference", "%", Better.NEITHER, 1, "(measured - target) / |target|."),
    )
    rows = tuple(
        Row(q.name, (q.target, q.measured, 100 * (q.measured - q.target) / abs(q.target) if q.target else None))
        for q in quantities
    )
    return Table("Calibration", columns, rows, "signal and contrast to noise of the simulated scan")


def gains_table(calibration: Calibration) -> Table:
    """Return the table of gains, of the direction that contrasts leave open, and of the sensitivity to each target."""
    targets = tuple(next(iter(calibration.sensitivity.values()))) if calibration.target else ()
    columns = (
        Column("Gain", "", Better.NEITHER, 4, "Factor on the tissue's share of the source image."),
        Column("Noise-free SNR", "", Better.NEITHER, 2, "What these gains give in the tissue's core, without noise."),
        Column(
            "Null vector",
            "",
            Better.NEITHER,
            6,
            "Change of the gains that adds 1 to the SNR of every tissue and changes no contrast: what contrasts alone "
            "cannot tell.",
        ),
        *(
            Column(
                f"per {name}",
                "% / %",
                Better.NEITHER,
                2,
                f"Change of the gain in % when the target {name} rises by 1 %.",
            )
            for name in targets
        ),
    )
    rows = tuple(
        Row(
            name,
            (
                gain,
                calibration.predicted[name],
                calibration.null_vector[name],
                *(_elasticity(calibration, name, target) for target in targets),
            ),
        )
        for name, gain in calibration.gains.items()
    )
    low, high = calibration.feasible_interval
    bounds = f"on a bound: {', '.join(calibration.active_bounds)}" if calibration.active_bounds else "none on a bound"
    note = (
        f"gauge: {calibration.gauge}; {bounds}; {low:.3g} to {high:.3g} null vectors may be added within the bounds; "
        f"scale: {calibration.scale}"
    )
    return Table("Gains", columns, rows, note)


def _elasticity(calibration: Calibration, tissue: str, target: str) -> float | None:
    """Return the relative change of a gain per relative change of a target: a tissue's SNR, or a pair's contrast."""
    first, _, second = target.partition("-")
    goal = calibration.target[first] - (calibration.target[second] if second else 0.0)
    gain = calibration.gains[tissue]
    return calibration.sensitivity[tissue][target] * goal / gain if gain else None
