"""Single slices of a 0.055 T scanner (HKU), fitted in their plane, beside 3 T pictures of the same person.

A slice is a volume of one voxel along its normal, so the fit can only sharpen it in its plane; slices of which gaps
and thickness are not stated are no stack. The field of view is not stated either: 250 mm on both axes is assumed,
which gives heads of a usual size and the aspect of the 3 T pictures. No brain is sought: intensity alone is fitted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from common.results import Row
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from inr.fitting.fit import FitSettings, fit
from inr.scans.heldout import smooth_start, split
from inr.scans.single import OneScan
from inr.trust.ensemble import whiteness
from inr.voxels import cubic
from mrcore.data.acquisition import AxisPsf
from mrcore.data.grid import Grid
from mrcore.data.volume import TissueMap, Volume
from mrcore.forward import imaging_operator, predict
from mrcore.noise import residual_z
from mrkit.superresolution.lattice import foreground_of
from ulfsim.measurement.noise import scan_noise

SLICES = "Real 0.055 T slices: voxels held out and residuals (means of four)"
FILE = "hku_0p055T_fig6B.npz"
SEQUENCES = {"GRE": "T1w", "FSE": "T2w", "FLAIR": "FLAIR"}
FOV_MM, VOXEL_MM = 250.0, 1.0
THICKNESS_MM = 3.0
"""Not stated; total variation counts by volume, and this gives voxels the 12 mm^3 for which its weight was set."""
SEED, FOLD = 1, 7
PIXELS = 300


def fitted_slices(folder: Path, pictures: Path) -> list[Row]:
    """Fit every slice of the three sequences, return the means over slices, and write a picture of the second."""
    rows: list[Row] = []
    shown = []
    with np.load(folder / FILE) as data:
        for sequence, contrast in SEQUENCES.items():
            found = []
            for number in range(data[f"ksp_{sequence}"].shape[-1]):
                scan = _slice(data[f"ksp_{sequence}"][..., number])
                figures, images = _fitted(scan)
                found.append(figures)
                if number == 1:
                    reference = data[f"ref3T_{contrast}"][..., number]
                    shown.append([_picture(x) for x in (scan.data[..., 0], *images, torch.from_numpy(reference))])
            means = {name: float(np.mean([f[name] for f in found])) for name in found[0]}
            size = [f"{s:.2f}" for s in scan.grid.spacing_mm[:2]]
            rows.append({"table": SLICES, "scan": sequence, "voxel mm": " x ".join(size), **means})
    pictures.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.vstack([np.hstack(row) for row in shown])).save(pictures / "real_0p055T.png")
    return rows


def _slice(k_space: NDArray[np.complex64]) -> Volume:
    """Return the magnitude (X, Y, 1) of a slice; its axes run against those of the pictures that come with it."""
    image = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(k_space), norm="ortho"))[::-1, ::-1]
    spacing = (FOV_MM / image.shape[0], FOV_MM / image.shape[1], THICKNESS_MM)
    data = torch.from_numpy(np.abs(image)[..., None].astype(np.float32))
    return Volume(data, Grid((*image.shape, 1), np.diag([*spacing, 1.0])))


def _fitted(scan: Volume) -> tuple[dict[str, float], list[Tensor]]:
    """Return figures of a fit that is not shown 4 % of the voxels, and the images (X, Y) of cubic and of the fit."""
    scale = float(scan.data.quantile(0.98))
    scan = Volume(scan.data / scale, scan.grid)
    n = round(FOV_MM / VOXEL_MM)
    affine = np.diag([VOXEL_MM, VOXEL_MM, THICKNESS_MM, 1.0])
    # Both fields of view begin at the same edge.
    affine[:2, 3] = [(VOXEL_MM - s) / 2 for s in scan.grid.spacing_mm[:2]]
    lattice = Grid((n, n, 1), affine)
    psf = (AxisPsf(truncate=True), AxisPsf(truncate=True), AxisPsf(truncate=False))
    operator = imaging_operator(lattice, scan.grid, psf)
    interpolated = cubic(scan, lattice)
    head = foreground_of(interpolated.data, torch.zeros(lattice.shape, dtype=torch.bool), 0.05, lattice)
    on_scan = foreground_of(scan.data, torch.zeros(scan.grid.shape, dtype=torch.bool), 0.05, scan.grid)
    noise_sd = scan_noise(scan, on_scan).high
    part = split(operator, scan.data, scan.grid.spacing_mm, FOLD, SEED)
    start = smooth_start(part, scan.grid, lattice, noise_sd)
    done = fit(
        OneScan(part.scan, part.operator, noise_sd),
        lattice,
        start[None],
        head,
        TissueMap(head[None].float(), ("WM",), lattice),
        SEED,
        FitSettings(tissue_weight=0.0),
    )
    residual, at = residual_z(scan.data, predict(operator, done.image), noise_sd), part.held_out & on_scan
    white = whiteness(residual, on_scan & ~part.held_out)
    figures = {
        "signal / noise": float(scan.data[on_scan].mean()) / noise_sd,
        "error / noise": float(residual[at].square().mean().sqrt()),
        "that of cubic": float(((scan.data - part.filled) / noise_sd)[at].square().mean().sqrt()),
        "residual sd": white.sd,
        **{f"lag 1, axis {axis}": lags[0] for axis, lags in enumerate(white.autocorrelation[:2])},
        "worst / standard error": white.worst,
    }
    return figures, [interpolated.data[..., 0], done.image[..., 0]]


def _picture(values: Tensor) -> NDArray[np.uint8]:
    """Return a picture of a slice (X, Y) in its own window; its sides are not stated, so none is written."""
    level = (values / float(np.percentile(values.numpy(), 99.7))).clamp(0, 1)
    picture = Image.fromarray(np.rint(level.numpy() * 255).astype(np.uint8))
    return np.asarray(picture.resize((PIXELS, PIXELS), Image.Resampling.NEAREST))
