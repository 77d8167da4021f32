"""The demo of `mrkit quantify`: a fingerprint of a digital head, undersampled, and its maps against the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mrcore.data.grid import Grid, cropped
from mrcore.data.volume import TissueMap, Volume
from mrcore.phantom import digital_head
from mrkit.files.outputs import (
    FileOutput,
    ImageOutput,
    Output,
    OutputNames,
    check_outputs,
    json_output,
    text_output,
    write_results,
)
from mrkit.files.provenance import Record
from mrkit.progress import stages, steps
from mrkit.quantification.methods import DEFAULT_METHOD, METHODS
from mrkit.quantification.page import Shown, quantify_report
from mrkit.quantification.quantify import Quantified, QuantifySettings, prepare_raw, quantify_prepared, weighted_volume
from mrkit.quantification.scores import KnownMaps, map_errors
from mrkit.report.report import Fact, build_page
from recon.coils.loops import loop_coil_maps
from recon.contrasts import FLAIR, T1W, T2W
from recon.files.npz import write_npz
from recon.files.sequences import delics_sequence
from recon.rawdata import RawData
from recon.simulation import Jitter, simulate_raw
from recon.trajectories.builders import spiral

ACCELERATION = 8
"""Against a train that is repeated 16 times, each time along other spiral arms."""
_N, _VOXEL_MM, _SLICE_MM = 128, 1.5, 5.0
_N_SLICES, _SLICE = 40, 22
_N_COILS = 8
_ARMS_OF_A_PLANE, _MOST_SHOTS = 768, 16
_SNR = 20.0
_SPEED = f"{ACCELERATION}-fold"
METHOD_NAMES = (DEFAULT_METHOD, "cg")


@dataclass(frozen=True, eq=False)
class DemoScan:
    """Simulated raw data and what they were simulated from."""

    raw: RawData
    truth: KnownMaps


def run_quantify_demo(out: Path, *, seed: int = 0, force: bool = False) -> Path:
    """Write the demo's raw data, maps, true maps, errors and page to `out`; return the page.

    Raises:
        BadInputError: results exist and `force` is off.
    """
    names, page, table, raw_file = OutputNames(out, "demo"), out / "report.html", out / "metrics.json", out / "raw.npz"
    kinds = [f"desc-{of}_{name}" for of in ("truth", *METHOD_NAMES) for name in ("T1map", "T2map", "PDmap")]
    check_outputs(map(names.image, kinds), [page, table, raw_file], [], force=force)
    with stages(7 + len(METHOD_NAMES)) as begin:
        begin("simulating an undersampled fingerprint of a digital head")
        scan = demo_scan(seed)
        ready = prepare_raw(scan.raw, QuantifySettings(), seed=seed, announce=begin)
        results: dict[str, Quantified] = {}
        for name in METHOD_NAMES:
            begin(f"reconstructing by {METHODS[name].title}")
            with steps(METHODS[name].n_steps) as step:
                results[METHODS[name].title] = quantify_prepared(ready, METHODS[name], watch=step)
        begin("writing maps and report")
        record = _record(results, seed)
        main = next(iter(results.values()))
        weighted = {f"{c.name}, computed": weighted_volume(main, c) for c in (T1W, T2W, FLAIR)}
        title = "mrkit demo: a simulated fingerprint and its maps"
        shown = Shown(results, weighted, scan.truth)
        html = build_page(quantify_report(shown, record, title, (Fact("Acceleration", _SPEED),)), "quantify.html.j2")
        errors = {name: map_errors(result, scan.truth) for name, result in results.items()}
        outputs: list[Output] = [
            FileOutput(raw_file, lambda to, force: write_npz(scan.raw, to, force=force)),
            *_maps(names, scan, results),
            json_output(table, {"errors_percent": errors}, sort_keys=True),
            text_output(page, html),
        ]
        sidecar = record.sidecar() | {"Phantom": "mrcore.phantom.digital_head", "Versions": record.versions}
        write_results(outputs, sidecar, force=force)
        return page


def demo_scan(seed: int, n: int = _N) -> DemoScan:
    """Return raw data of a slice of the digital head at 3 T: Deli-CS train, spiral arms, eight coils.

    Acceleration 1 repeats the train 16 times, each time along other arms, R repeats it 16 / R times. The true PD is
    that which the coils together see, as coil maps found from data have a root sum of squares of 1.
    What reconstructs does not know the gradient delay, the offsets of the arms, nor the B1 of 0.98 to 1.02.
    """
    voxel_mm = _N * _VOXEL_MM / n
    affine = np.diag([voxel_mm, voxel_mm, _SLICE_MM, 1.0])
    affine[:3, 3] = -np.array([voxel_mm * n, voxel_mm * n, _SLICE_MM * _N_SLICES]) / 2
    head = digital_head(Grid((n, n, _N_SLICES), affine), seed=seed)
    grid = cropped(head.grid, (0, 0, _SLICE), (n, n, 1))
    t1_s, t2_s, pd = (values[:, :, _SLICE : _SLICE + 1].contiguous() for values in (head.t1_s, head.t2_s, head.pd))
    prob = head.tissues.prob[..., _SLICE : _SLICE + 1].contiguous()
    x, y = _centred(grid)
    phase = torch.polar(torch.ones_like(x), 0.8 * x - 0.5 * y * y)
    sequence, coils = delics_sequence(), loop_coil_maps(grid, _N_COILS)
    raw = simulate_raw(
        t1_s,
        t2_s,
        pd * phase,
        sequence,
        spiral(grid, sequence.n_frames, _ARMS_OF_A_PLANE, arms_per_frame=_MOST_SHOTS // ACCELERATION),
        coils,
        b1=1.02 - 0.04 * (x * x + y * y).clamp_max(1),
        jitter=Jitter((0.02, 0.02, 0.0), 0.01),
        snr=_SNR,
        n_noise=2000,
        seed=seed,
    )
    seen = pd * coils.abs().square().sum(0).sqrt()
    return DemoScan(raw, KnownMaps(t1_s, t2_s, seen, TissueMap(prob, head.tissues.names, grid)))


def _centred(grid: Grid) -> tuple[Tensor, Tensor]:
    """Return the first two coordinates (X, Y, Z) of each voxel, -1 to 1 over the field of view."""
    axes = [torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in grid.shape]
    x, y, _ = torch.meshgrid(*axes, indexing="ij")
    return x, y


def _record(results: Mapping[str, Quantified], seed: int) -> Record:
    parameters = {
        "Sequence": "Deli-CS train, 500 frames",
        "Trajectory": f"spiral, {_MOST_SHOTS // ACCELERATION} arms of {_ARMS_OF_A_PLANE} a frame",
        "Coils": _N_COILS,
        "SNR": _SNR,
        "Methods": {name: METHODS[name].settings_values() for name in METHOD_NAMES},
    }
    notes = tuple(dict.fromkeys(note for result in results.values() for note in result.notes))
    return Record(seed=seed, parameters=parameters, notes=notes)


def _maps(names: OutputNames, scan: DemoScan, results: Mapping[str, Quantified]) -> list[ImageOutput]:
    """Return the maps of the truth and of each method."""
    grid, truth = scan.raw.grid, scan.truth
    maps = {"truth": (truth.t1_s, truth.t2_s, truth.pd)}
    for name, result in zip(METHOD_NAMES, results.values(), strict=True):
        maps[name] = (result.t1_s.data, result.t2_s.data, result.pd.data.abs())
    units = {"T1map": "s", "T2map": "s", "PDmap": "arbitrary"}
    return [
        ImageOutput(names.image(f"desc-{of}_{name}"), Volume(data, grid), about={"Units": unit})
        for of, tensors in maps.items()
        for (name, unit), data in zip(units.items(), tensors, strict=True)
    ]
