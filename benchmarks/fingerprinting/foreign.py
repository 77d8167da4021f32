"""Fingerprints that are not ours: KomaMRI's radial raw data, and the spheres of the ISMRM/NIST phantom.

KomaMRI's data are described in `fingerprinting.koma`. For the NIST phantom there are maps of another group (ranges
only) and the reference values of its spheres, which we scan and reconstruct.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from common.results import Row, target
from common.sources import version_of
from common.store import Store
from numpy.typing import NDArray
from scipy import ndimage
from scipy.io import loadmat

from fingerprinting.koma import KOMA, koma_rows
from fingerprinting.methods import METHODS, MRI2QMAP, model_of, prepared
from fingerprinting.scene import Case, Truth, scanned
from mrcore.data.grid import Grid
from recon.dictionary.dictionary import fisp_model
from recon.files.sequences import delics_sequence

NIST_MAPS, NIST = "Foreign data: maps of the NIST phantom", "Spheres as NIST's"

LONGEST_S = (1.989, 0.5813)
"""Longest T1 of the spheres with nickel chloride and longest T2 of those with manganese chloride, at 3 T; as below."""
T2_ARRAY: Sequence[tuple[float, float]] = (
    *((2.480, 0.5813), (2.173, 0.4035), (1.907, 0.2781), (1.604, 0.1909), (1.332, 0.1333), (1.044, 0.0969)),
    *((0.8017, 0.0641), (0.6086, 0.0464), (0.4582, 0.0320), (0.3365, 0.0226), (0.2449, 0.0158), (0.1766, 0.0112)),
)
"""T1 and T2 in s at 3 T of the spheres with manganese chloride, the two of shortest T2 (8 and 6 ms) left out.

Stupic et al., MRM 2021;86:1194.
"""


def rows_of(data: Path, store: Store) -> list[Row]:
    """Return the rows of all foreign data that are in the folder `data`."""
    makers = {
        "koma": (koma_rows, data / "mrf" / "koma_mrf_radial_raw.npz"),
        "maps": (_nist_maps, data / "copyleft" / "imr_nist_T1_map.mat"),
        "spheres": (_spheres, data),
    }
    rows: list[Row] = []
    for name, (make, path) in makers.items():
        key = {"foreign": name, "version": version_of(make)}
        found = store.load(key)
        if found is None:
            found = make(data) if path.exists() else []
            store.save(key, found)
        rows += found
    return rows


def targets_of(rows: Sequence[Row]) -> list[Row]:
    """Return whether MRI2Qmap finds the T1 and T2 of KomaMRI's white and grey matter, to 5 % and 10 %."""
    ours = [row for row in rows if row["table"] == KOMA and row["method"] == MRI2QMAP and row["tissue"] != "CSF"]
    out: list[Row] = []
    for quantity, bound in (("T1", 5.0), ("T2", 10.0)):
        worst = max((abs(float(str(row[f"{quantity} error %"]))) for row in ours), default=math.nan)
        out.append(target(f"KomaMRI: largest error of {quantity} in WM and GM, %", worst, at_most=bound))
    return out


def _nist_maps(data: Path) -> list[Row]:
    """Return the range of T1 and T2 over the uniform spheres of another group's maps, beside the longest known.

    T1 is of the nickel array, T2 of the manganese array; which sphere is which is not said, so only ranges compare.
    """
    rows: list[Row] = []
    for name, known in (("T1", LONGEST_S[0]), ("T2", LONGEST_S[1])):
        values = loadmat(data / "copyleft" / f"imr_nist_{name}_map.mat")[f"{name}_map"]
        mean = ndimage.uniform_filter(values, 3)
        spread = np.sqrt(np.maximum(ndimage.uniform_filter(values**2, 3) - mean**2, 0))
        regions, n = ndimage.label((mean > 0.03) & (spread < 0.15 * mean))
        sizes = ndimage.sum_labels(np.ones_like(values), regions, range(1, n + 1))
        medians = [float(np.median(values[regions == i + 1])) for i, size in enumerate(sizes) if 40 <= size <= 200]
        row = {"table": NIST_MAPS, "map": f"{name} s", "spheres found": len(medians)}
        row |= {"least": min(medians, default=math.nan), "most": max(medians, default=math.nan)}
        rows.append({**row, "most known": known})
    return rows


def _spheres(data: Path) -> list[Row]:
    """Return T1 and T2 that subspace CG finds in spheres of NIST's values, scanned at fourfold acceleration."""
    grid = Grid((96, 96, 1), np.diag([2.0, 2.0, 4.0, 1.0]))
    place = np.stack(np.meshgrid(*[np.arange(96) - 48] * 2, indexing="ij"), -1)
    t1_s, t2_s, pd = (np.zeros((96, 96), np.float32) for _ in range(3))
    inner: list[NDArray[np.bool_]] = []
    for i, (t1, t2) in enumerate(T2_ARRAY):
        angle = 2 * math.pi * i / len(T2_ARRAY)
        distance = np.linalg.norm(place - 32 * np.array([math.cos(angle), math.sin(angle)]), axis=-1)
        t1_s[distance < 7], t2_s[distance < 7], pd[distance < 7] = t1, t2, 1
        inner.append(distance < 5)
    maps = [torch.from_numpy(values)[..., None] for values in (t1_s, t2_s, pd)]
    truth = Truth("spheres", grid, maps[0], maps[1], maps[2].to(torch.complex64), {})
    sequence = delics_sequence()
    raw, _ = scanned(truth, Case("spheres", "spiral", 4), sequence)
    found = METHODS["subspace CG"](prepared(raw, model_of(sequence, fisp_model(sequence))))
    rows: list[Row] = []
    for (t1, t2), inside in zip(T2_ARRAY, inner, strict=True):
        values = [float(m[..., 0][torch.from_numpy(inside)].median()) for m in (found.t1_s, found.t2_s)]
        row = {"table": NIST, "T1 s": t1, "found T1 s": values[0], "T1 error %": 100 * (values[0] / t1 - 1)}
        rows.append({**row, "T2 s": t2, "found T2 s": values[1], "T2 error %": 100 * (values[1] / t2 - 1)})
    squared = {
        f"R2 of {name}": float(
            np.corrcoef([r[f"{name} s"] for r in rows], [r[f"found {name} s"] for r in rows])[0, 1] ** 2
        )
        for name in ("T1", "T2")
    }
    return [*rows, {"table": NIST, **squared}]
