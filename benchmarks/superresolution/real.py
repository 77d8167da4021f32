"""Real ultra-low-field scans: 64 mT T1w, T2w and FLAIR of one person, one by one and jointly, and 0.055 T slices.

There is no truth. A fit is hidden 4 % of the voxels of each scan (`inr.scans.heldout`); how it predicts them, against
cubic interpolation from their neighbours, and how white the residuals of the others are, is what can be said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from common.results import Row, measured
from common.sources import version_of
from common.store import Store
from torch import Tensor

from inr.fitting.fit import FitSettings
from inr.scans.alignment import Pose
from inr.scans.heldout import filled, held_out, hide
from inr.scans.stacks import Stacks, inside
from inr.trust.ensemble import whiteness
from inr.voxels import cubic
from mrcore.data.volume import Volume
from mrcore.noise import residual_z
from mrcore.spatial.cropping import crop_to
from mrkit.files.images import read_scan
from mrkit.report.pictures import intensity_picture, mosaic_picture, sections, window_of
from mrkit.superresolution.fitting import FitPlan, fit_data
from mrkit.superresolution.lattice import on_lattice
from mrkit.superresolution.prepare import prepare
from superresolution.slices import fitted_slices

REAL = "Real 64 mT scans: voxels held out and residuals"
CONTRASTS = ("T1w", "T2w", "FLAIR")
NAME = "lowgan_MS017_64mT_{}.nii.gz"
SEED, FOLD = 1, 7


def real(folder: Path, voxel_mm: float, store: Store) -> list[Row]:
    """Return the rows of all real scans, and leave pictures in the folder of the store."""
    jobs = [
        ("one by one, jointly", lambda: _brains(folder, voxel_mm, store.folder), version_of(_brains)),
        ("slices", lambda: fitted_slices(folder, store.folder), version_of(fitted_slices)),
    ]
    rows: list[Row] = []
    for name, work, version in jobs:
        key = {"real": name, "voxel_mm": voxel_mm, "version": version}
        found = store.load(key)
        if found is None:
            found = work()
            store.save(key, found)
        rows += found
    return rows


def _brains(folder: Path, voxel_mm: float, pictures: Path) -> list[Row]:
    """Fit the three contrasts of one person one by one, then together; write a picture of all."""
    scans = [read_scan(folder / NAME.format(name)) for name in CONTRASTS]
    rows: list[Row] = []
    images: dict[str, Volume] = {}
    brains: dict[str, Tensor] = {}
    for names in (CONTRASTS, *((name,) for name in CONTRASTS)):
        how = "jointly" if len(names) > 1 else "alone"
        found, made, brain = _fitted(names, [scans[CONTRASTS.index(name)] for name in names], how, voxel_mm)
        rows += found
        images |= {f"{name} {how}": image for name, image in made.items()}
        brains |= dict.fromkeys(names, brain)
    _draw(dict(zip(CONTRASTS, scans, strict=True)), images, brains, pictures / "real_64mT.png")
    return rows


def _fitted(
    names: Sequence[str], scans: Sequence[Volume], how: str, voxel_mm: float
) -> tuple[list[Row], dict[str, Volume], Tensor]:
    """Fit scans of one person, a part of them hidden; return a row a scan, images in its units and the brain (bool)."""
    hidden = [held_out(scan.grid.shape, FOLD) for scan in scans]
    seen = [
        Volume(filled(scan.data, h, scan.grid.spacing_mm), scan.grid, scan.meta)
        for scan, h in zip(scans, hidden, strict=True)
    ]
    with measured() as cost:
        ready = prepare(seen, voxel_mm=voxel_mm, weightings=names)
        part = hide(ready.data, scans[0].grid.spacing_mm, FOLD, SEED)
        done = fit_data(ready, part.data, ready.start, SEED, FitPlan(FitSettings()))
    # Poses and scales that the fit found; the operator of one scan is that of the whole.
    data = done.data if isinstance(done.data, Stacks) else ready.data
    expected = data.predictions(done.images)
    rows: list[Row] = []
    for number, (name, scan, predicted) in enumerate(zip(names, scans, expected, strict=True)):
        scale, pose = ready.scales[ready.contrasts.index(name)], Pose()
        seen_grid = scan.grid
        if isinstance(data, Stacks):
            pose, seen_grid = data.stacks[number].pose, data.stacks[number].grid
        brain_there = on_lattice(ready.tissues, seen_grid).mask & inside(seen_grid, ready.lattice)
        noise_sd = ready.noise_sds[number] / scale
        z = residual_z(scan.data / scale, predicted, noise_sd)
        of_cubic = (scan.data - seen[number].data) / (scale * noise_sd)
        found = _audit(z, of_cubic, hidden[number], brain_there)
        moved = {"turn deg": pose.angle_deg, "shift mm": pose.distance_mm}
        rows.append({"table": REAL, "scan": name, "fit": how, "voxel mm": voxel_mm, **found, **moved})
    rows[0] = {**rows[0], "seconds": cost.seconds}
    scaled = [image * scale for image, scale in zip(done.images, ready.scales, strict=True)]
    cut = [crop_to(Volume(image, ready.lattice), ready.output_grid) for image in scaled]
    brain = crop_to(Volume(ready.tissues.mask.float(), ready.lattice), ready.output_grid).data > 0.5
    return rows, {name: cut[ready.contrasts.index(name)] for name in names}, brain


def _audit(residual: Tensor, of_cubic: Tensor, hidden: Tensor, brain: Tensor) -> dict[str, float]:
    """Return errors of hidden voxels of the brain in units of the noise, and the whiteness of the others' residuals."""
    at, white = hidden & brain, whiteness(residual, brain & ~hidden)
    return {
        "held-out voxels": int(at.sum()),
        "error / noise": float(residual[at].square().mean().sqrt()),
        "that of cubic": float(of_cubic[at].square().mean().sqrt()),
        "residual sd": white.sd,
        **{f"lag 1, axis {axis}": lags[0] for axis, lags in enumerate(white.autocorrelation)},
        "worst / standard error": white.worst,
    }


def _draw(scans: Mapping[str, Volume], images: Mapping[str, Volume], brains: Mapping[str, Tensor], path: Path) -> None:
    """Write a row for each contrast and plane: the scan, cubic, fitted alone and jointly, in the window of the brain.

    `brains` (bool) are those of the fits alone. The scalp of a T1w scan, brighter than any brain, saturates.
    """
    rows = []
    for name, scan in scans.items():
        fits = [images[f"{name} {how}"] for how in ("alone", "jointly")]
        interpolated = cubic(scan, fits[0].grid)
        window, planes = window_of(interpolated, brains[name]), sections(fits[0].grid, brains[name])
        shown = [scan, interpolated, *fits]
        rows += [[intensity_picture(image, plane, window) for image in shown] for plane in (planes[0], planes[2])]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(mosaic_picture(rows))
