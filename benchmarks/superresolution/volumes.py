"""Volumes of ventricles, thalamus and hippocampus that a super-resolved scan gives, against those of its truth.

A structure has no border of its own in tissue maps, so its volume is defined as that of its tissue (CSF for the
ventricles, GM for thalamus and hippocampus; summed fractions) inside its FreeSurfer label grown by MARGIN_MM. Truth
and methods are measured in the same region, so the error is that of the tissues' borders; divided by the area of the
label's surface it is the mean shift of that border in mm (positive: the structure grew).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from common.results import Row
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import marching_cubes, mesh_surface_area
from torch import Tensor

from mrcore.data.grid import Grid
from mrcore.data.volume import TissueMap, Volume
from mrcore.io.volumes import load_volume
from mrcore.spatial.resampling import resample

TABLE = "Volumes of structures"
MARGIN_MM = 4.0
STRUCTURES: Mapping[str, tuple[str, tuple[int, ...]]] = MappingProxyType(
    {
        "lateral ventricles": ("CSF", (4, 43, 5, 44)),
        "thalamus": ("GM", (10, 49)),
        "hippocampus": ("GM", (17, 53)),
    }
)
"""Tissue and FreeSurfer codes of each structure."""
LABELS: Mapping[str, str] = MappingProxyType({"visualqc_id001": "labels/visualqc_id001_aparc+aseg.mgz"})
"""Label maps, on the grid of the image, of the evaluated brains that have one."""


def labels_of(name: str, data: Path) -> Volume | None:
    """Return the labels of an evaluated brain; None where it has none, or the file is missing."""
    path = data / LABELS[name] if name in LABELS else None
    return load_volume(path) if path is not None and path.is_file() else None


def labelled_scan(data: Path) -> tuple[Volume, Volume]:
    """Return image and FreeSurfer labels of the scan that VoxelMorph carries; its axes run left, down and forward."""
    scan = np.load(data / "labels" / "voxelmorph_test_scan.npz")
    image, labels = (torch.from_numpy(scan[key].squeeze().astype(np.float32)) for key in ("vol", "seg"))
    affine = np.array([[-1.0, 0, 0, 80], [0, 0, 1, -112], [0, -1, 0, 96], [0, 0, 0, 1]])
    grid = Grid(tuple(image.shape), affine)
    return Volume(image, grid, {"SkullStripped": True}), Volume(labels, grid)


def volume_rows(
    labels: Volume, reference: TissueMap, found: Mapping[str, TissueMap], about: Mapping[str, object]
) -> list[Row]:
    """Return a row per method and structure; `labels` are taken to the grid of the tissue maps by nearest voxel.

    `reference` are the tissues of the truth, `found` those of the methods, all on one grid; `about` begins each row.
    """
    codes = resample(labels, reference.grid, order=0).data.round().long()
    voxel_ml = abs(float(np.linalg.det(reference.grid.affine[:3, :3]))) / 1000
    rows: list[Row] = []
    for name, (tissue, wanted) in STRUCTURES.items():
        label = torch.isin(codes, torch.tensor(wanted))
        if not bool(label.any()):
            continue
        region = _grown(label, reference.grid)
        area_mm2 = _area(label, reference.grid)
        truth = float(reference.of(tissue)[region].double().sum()) * voxel_ml
        for method, tissues in found.items():
            volume = float(tissues.of(tissue)[region].double().sum()) * voxel_ml
            rows.append(
                {
                    "table": TABLE,
                    **about,
                    "structure": name,
                    "tissue": tissue,
                    "method": method,
                    "label ml": float(label.sum()) * voxel_ml,
                    "truth ml": truth,
                    "ml": volume,
                    "error %": 100 * (volume / truth - 1),
                    "border shift mm": 1000 * (volume - truth) / area_mm2,
                }
            )
    return rows


def _grown(label: Tensor, grid: Grid) -> Tensor:
    distance: NDArray[np.float64] = ndimage.distance_transform_edt(~label.numpy(), sampling=grid.spacing_mm)
    return torch.from_numpy(distance <= MARGIN_MM)


def _area(label: Tensor, grid: Grid) -> float:
    """Return the area of a label's surface in mm^2, smoothed by 1 voxel: that of voxel faces is half as large again."""
    smooth = ndimage.gaussian_filter(np.pad(label.numpy().astype(np.float32), 4), 1.0)
    points, faces, _, _ = marching_cubes(smooth, 0.5, spacing=grid.spacing_mm)
    return float(mesh_surface_area(points, faces))
