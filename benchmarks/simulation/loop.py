"""Closed loop and real check: is a simulated scan what was asked for, and how like a real scan is it?"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from common.brains import FILES, load_brain
from common.results import Row, target
from common.store import Store
from tqdm import tqdm

from mrcore.data.grid import Grid
from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.spatial.registration import RegisterSettings, register
from mrcore.spatial.resampling import resample
from mrkit.anatomy.finding import find_tissues
from mrkit.files.images import read_scan
from mrkit.simulation.simulate import simulate_ulf
from ulfsim.degradations import gaussian_blur_degradation, scaled_to_mean, torchio_style_degradation, with_noise_of
from ulfsim.measurement.contrast import measure, pairs
from ulfsim.measurement.facts import scan_facts
from ulfsim.measurement.fidelity import FidelityErrors, compare
from ulfsim.plan import plan_scan, tissues_through
from ulfsim.protocols.presets import PRESETS, Preset
from ulfsim.simulation import calibrated_simulation, redrawn
from ulfsim.source.source import source_of

LOOP = "Closed loop: SNR and CNR measured in the scan against those asked for, median over the seeds, %"
REAL = "Real check: errors against real 64 mT scans"
TOLERANCE = 0.05
OURS, BLUR, NOISY_BLUR, TORCHIO = "mrkit --like", "Gaussian blur", "Gaussian blur + the real noise", "TorchIO-style"
CONTRASTS: Mapping[str, Mapping[str, str]] = {
    "T1w": {"stroke": "stroke_3T_T1_brain.nii.gz", "openms_p26": "openms_p26_T1_brain_mni1mm.nii.gz"},
    "T2w": {"stroke": "stroke_3T_T2_brain.nii.gz", "openms_p26": "openms_p26_T2_brain_mni1mm.nii.gz"},
    "FLAIR": {"stroke": "stroke_3T_FLAIR_brain.nii.gz", "openms_p26": "openms_p26_FLAIR_brain_mni1mm.nii.gz"},
}
"""Co-registered high-field images of two persons, by contrast."""


def closed_loop(data: Path, names: Sequence[str], n_seeds: int, store: Store) -> list[Row]:
    """Simulate each brain with each preset, measure SNR and CNR in the scans, and return their errors."""
    rows: list[Row] = []
    for name in tqdm(names, desc="closed loop", disable=None):
        for preset in PRESETS.values():
            key = {"section": "loop", "brain": name, "preset": preset.name, "n_seeds": n_seeds}
            found = store.load(key)
            if found is None:
                found = [_loop_row(name, data / FILES[name], preset, n_seeds)]
                store.save(key, found)
            rows += found
    return rows


def _loop_row(name: str, path: Path, preset: Preset, n_seeds: int) -> Row:
    brain = load_brain(path, preset.acquisition, voxel_mm=1.0)
    source = source_of(brain.volume, brain.tissues)
    calibration, made = calibrated_simulation(source, preset, 0)
    seen = tissues_through(plan_scan(source.volume.grid, preset.acquisition), brain.tissues)
    # The noise is measured in each scan again, as in a real one.
    found = [measure(Volume(scan, made.scan.grid), seen) for scan in redrawn(made, range(n_seeds))]
    row: dict[str, object] = {"table": LOOP, "brain": name, "preset": preset.name, "noise from": found[0].noise_method}
    for number, tissue in enumerate(seen.names):
        row[f"SNR {tissue}"] = _percent(statistics.median(f.snr[number] for f in found), preset.snr[tissue])
    for a, b in pairs(seen.names):
        row[f"CNR {a}-{b}"] = _percent(statistics.median(f.cnr(a, b) for f in found), preset.snr[a] - preset.snr[b])
    return {**row, "warnings": len(calibration.warnings)}


def _percent(value: float, goal: float) -> float:
    return 100 * (value - goal) / abs(goal)


def loop_targets(rows: Sequence[Row]) -> list[Row]:
    """Return one target per preset and kind, for the worst brain and tissue."""
    out = []
    for preset in PRESETS:
        for kind in ("SNR", "CNR"):
            errors = [
                abs(float(str(value)))
                for row in rows
                if row["preset"] == preset
                for name, value in row.items()
                if name.startswith(f"{kind} ")
            ]
            worst = max(errors, default=math.nan)
            out.append(target(f"{preset}: largest {kind} error, %, all brains", worst, at_most=100 * TOLERANCE))
    return out


def real_check(t1: Path, ulf: Path, n_seeds: int, store: Store) -> list[Row]:
    """Simulate high-field images like real 64 mT scans of their contrast; return errors of ours and the baselines.

    The real scans are those of one person with multiple sclerosis. Tissues of its T2w and FLAIR scans are those of its
    T1w scan, registered rigidly; tissues of the sources those of their T1w image. Blur and TorchIO-style degradations
    get the same grid; they are measured with the same tissue maps as ours. A plain blur leaves hardly any noise, so the
    best case of it is shown as well: scaled to the real scan's mean and given the noise that was measured there.
    """
    rows: list[Row] = []
    for contrast, files in CONTRASTS.items():
        key = {"section": "real", "contrast": contrast, "n_seeds": n_seeds}
        found = store.load(key)
        if found is None:
            real, tissues = _real(ulf, contrast)
            found = [
                row
                for name, file in files.items()
                for row in _real_rows(contrast, name, t1 / file, t1 / CONTRASTS["T1w"][name], real, tissues, n_seeds)
            ]
            store.save(key, found)
        rows += found
    return rows


def _real(ulf: Path, contrast: str) -> tuple[Volume, TissueMap]:
    """Return a real scan and its tissues: those of the T1w scan of the same session, laid over it."""
    first = read_scan(ulf / "lowgan_MS017_64mT_T1w.nii.gz")
    tissues, _ = find_tissues(first)
    if contrast == "T1w":
        return first, tissues
    scan = read_scan(ulf / f"lowgan_MS017_64mT_{contrast}.nii.gz")
    motion = register(first, scan, RegisterSettings(dof=6)).motion
    moved = Grid(first.grid.shape, motion @ first.grid.affine)
    prob = torch.stack([resample(Volume(p, moved), scan.grid, order=1).data for p in tissues.prob]).clamp(0, 1)
    return scan, TissueMap(prob, tissues.names, scan.grid)


def _real_rows(
    contrast: str, name: str, path: Path, t1w: Path, real: Volume, tissues: TissueMap, n_seeds: int
) -> list[Row]:
    volume = read_scan(path)
    own, _ = find_tissues(read_scan(t1w))
    source = Volume(volume.data.clamp_min(0), volume.grid, volume.meta)
    wanted = scan_facts(real, tissues, "real")
    level = float(real.data[tissues.mask].mean())
    noise_sd = wanted.own_contrast.noise_sd
    errors: dict[str, list[FidelityErrors]] = {OURS: [], BLUR: [], NOISY_BLUR: [], TORCHIO: []}
    for seed in range(n_seeds):
        made = simulate_ulf(source, like=real, like_tissues=[tissues], tissues=own, seed=seed)
        seen = made.scan_tissues
        blurred = scaled_to_mean(gaussian_blur_degradation(source, made.scan.grid), seen.mask, level)
        scans = {
            OURS: made.scan,
            BLUR: blurred,
            NOISY_BLUR: with_noise_of(blurred, noise_sd, seed),
            TORCHIO: torchio_style_degradation(source, made.scan.grid, seed),
        }
        for method, scan in scans.items():
            try:
                errors[method].append(compare(scan_facts(scan, seen, method), wanted))
            except BadInputError:  # a scan without noise, or axes without edges
                continue
    return [_real_row(contrast, name, method, found) for method, found in errors.items() if found]


def _real_row(contrast: str, name: str, method: str, errors: Sequence[FidelityErrors]) -> Row:
    def median(values: Sequence[float]) -> float:
        return float(np.median(values))

    edges = np.median([e.edge_spread for e in errors], axis=0)
    return {
        "table": REAL,
        "contrast": contrast,
        "source": name,
        "method": method,
        "SNR": median([e.snr for e in errors]),
        "CNR": median([e.cnr for e in errors]),
        "noise spectrum, dB": median([e.spectrum_db for e in errors]),
        **{f"edge spread {axis}": float(edge) for axis, edge in zip("RAS", edges, strict=True)},
        "histogram": median([e.histogram for e in errors]),
        "noise from": errors[0].noise_method,
    }


def real_targets(rows: Sequence[Row]) -> list[Row]:
    """Return targets per contrast, for the worse of the two sources."""
    out = []
    for contrast in CONTRASTS:
        of = {(row["source"], row["method"]): row for row in rows if row["contrast"] == contrast}
        names = sorted({name for name, method in of if method == OURS})
        for kind, rival in itertools.product(("SNR", "CNR"), (BLUR, NOISY_BLUR)):
            ratios = [
                float(str(of[name, OURS][kind])) / float(str(of[name, rival][kind]))
                for name in names
                if (name, rival) in of
            ]
            worst = max(ratios, default=math.nan)
            out.append(target(f"{contrast}: {kind} error relative to that of {rival}", worst, at_most=0.5))
        edges = [float(str(of[name, OURS][f"edge spread {axis}"])) for name in names for axis in "RAS"]
        out.append(target(f"{contrast}: largest error of edge spread", max(edges, default=math.nan), at_most=0.15))
    return out
