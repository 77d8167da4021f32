"""The demo of `mrkit quantify`: a fingerprint of a digital head, undersampled, and its maps against the truth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mrcore.data.grid import Grid, cropped
from mrcore.data.volume import TissueMap, Volume
from mrcore.io.atomic import atomic_write
from mrcore.io.sidecar import finite
from mrcore.phantom import digital_head
from mrkit.files.outputs import Target, check_targets, write_image, write_page
from mrkit.files.provenance import Record, installed_versions
from mrkit.progress import stages, steps
from mrkit.quantification.methods import DEFAULT_METHOD, METHODS
from mrkit.quantification.page import QuantifyPage, build_quantify_page
from mrkit.quantification.quantify import Quantified, QuantifySettings, prepare_raw, quantify_prepared, weighted_volume
from mrkit.quantification.scores import KnownMaps, map_errors
from mrkit.report.report import Fact
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
    target, page, table, raw_file = Target(out, "demo"), out / "report.html", out / "metrics.json", out / "raw.npz"
    names = [f"desc-{of}_{name}" for of in ("truth", *METHOD_NAMES) for name in ("T1map", "T2map", "PDmap")]
    check_targets(map(target.image, names), [page, table, raw_file], [], force=force)
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
        content = QuantifyPage(results, record, weighted, scan.truth, title, (Fact("Acceleration", _SPEED),))
        html = build_quantify_page(content)
        errors = {name: map_errors(result, scan.truth) for name, result in results.items()}
        write_npz(scan.raw, raw_file, force=force)
        _write(target, scan, results, record, force=force)
        with atomic_write(table, force=force) as temporary:
            temporary.write_text(json.dumps(finite({"errors_percent": errors}), indent=2, sort_keys=True) + "\n")
        return write_page(html, page, force=force)


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
        "Methods": {name: METHODS[name].settings for name in METHOD_NAMES},
    }
    notes = tuple(dict.fromkeys(note for result in results.values() for note in result.notes))
    return Record(seed=seed, segmenter="", notes=notes, parameters=parameters, versions=installed_versions())


def _write(target: Target, scan: DemoScan, results: Mapping[str, Quantified], record: Record, *, force: bool) -> None:
    sidecar: dict[str, object] = {
        "Seed": record.seed,
        "Phantom": "mrcore.phantom.digital_head",
        "Notes": list(record.notes),
        "Versions": dict(record.versions),
    }
    grid, truth = scan.raw.grid, scan.truth
    maps = {"truth": (truth.t1_s, truth.t2_s, truth.pd)}
    for name, result in zip(METHOD_NAMES, results.values(), strict=True):
        maps[name] = (result.t1_s.data, result.t2_s.data, result.pd.data.abs())
    for of, tensors in maps.items():
        for (name, unit), data in zip((("T1map", "s"), ("T2map", "s"), ("PDmap", "arbitrary")), tensors, strict=True):
            path = target.image(f"desc-{of}_{name}")
            write_image(Volume(data, grid), path, sidecar | {"Units": unit}, force=force)
