"""How well tissues, brain masks and registration of mrkit agree with FSL FAST, labels, the template and phantoms.

    python benchmarks/run.py segmentation [--data ../shared/data] [--atropos-python PATH]

`--atropos-python` is an interpreter that has antspyx (which needs an older numpy than mrkit): Atropos then segments the
same brains; without it, its target stays unmet and says so.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from common.results import HERE, Row, measured, target, write_results
from common.sources import sources_of
from numpy.typing import NDArray

from mrcore.data.grid import Grid
from mrcore.data.volume import TISSUES, Volume
from mrcore.noise import add_noise
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from mrcore.segmentation.brainmask import is_skull_stripped, stripped_mask, template_brain_mask
from mrcore.segmentation.tissues import FLAIR_ORDER, T1W_ORDER, T2W_ORDER, HmrfSettings, segment

SEED = 1
VERSION_OF = sources_of("segmentation.benchmark")
DATA = HERE.parents[1] / "shared" / "data"
WHITE = (2, 41, 7, 46, 77, 78, 79, 251, 252, 253, 254, 255, 16, 28, 60, 85)
GREY = (3, 42, 8, 47, 10, 49, 11, 50, 12, 51, 13, 52, 17, 53, 18, 54, 26, 58, 9, 48)
FLUID = (4, 43, 5, 44, 14, 15, 24, 72, 31, 63)

ATROPOS = """
import sys, ants, numpy as np
case = np.load(sys.argv[1])
image, mask = ants.from_numpy(case["image"]), ants.from_numpy(case["mask"].astype("float32"))
found = ants.atropos(a=image, x=mask, i="kmeans[3]", m="[0.2,1x1x1]", c="[10,0]")
maps = np.stack([p.numpy() for p in found["probabilityimages"]])
inside = case["mask"]
level = [(m * case["image"])[inside].sum() / max(1e-6, m[inside].sum()) for m in maps]
np.save(sys.argv[2], (maps[np.argsort(level)].argmax(0) + 1) * inside)
"""

Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Case:
    """A brain with labels 1 CSF, 2 GM, 3 WM; Dice is taken in `inside`."""

    name: str
    reference: str
    volume: Volume
    mask: torch.Tensor
    labels: Labels
    inside: NDArray[np.bool_]
    order: tuple[str, str, str] = T1W_ORDER


def read(path: Path) -> Volume:
    """Return a NIfTI or MGH file as it is."""
    image = nib.load(path)
    return Volume(torch.from_numpy(np.asarray(image.dataobj, dtype=np.float32)), Grid(image.shape, image.affine))


def array(path: Path) -> NDArray[np.float32]:
    """Return the values of a file."""
    return np.asarray(nib.load(path).dataobj, dtype=np.float32)


def template(data: Path) -> tuple[Volume, torch.Tensor]:
    """Return the ICBM-152 brain and its mask."""
    volume = read(data / "template/mni152_sym09a_t1.nii.gz")
    return volume, stripped_mask(volume)


def brains(data: Path) -> Iterator[Case]:
    """Yield the real brains that have tissue labels."""
    volume, mask = template(data)
    maps = [array(data / f"template/mni152_sym09a_{t}.nii.gz") / 255 for t in ("gm", "wm")]
    labels = np.stack([1 - maps[0] - maps[1], *maps]).argmax(0) + 1
    yield Case("ICBM-152 template", "its own maps", volume, mask, labels, mask.numpy())
    eve = data / "copyleft/eve_fast"
    inside = array(eve / "eve_brainmask.nii.gz") > 0
    labels = array(eve / "eve_FAST_seg.nii.gz").astype(np.int64)
    yield Case("Eve", "FSL FAST", read(eve / "eve_brain_T1w.nii.gz"), torch.from_numpy(inside), labels, inside)
    volume = read(data / "t1/visualqc_id001_brainmask.mgz")
    labels = tissues_of_freesurfer(array(data / "labels/visualqc_id001_aparc+aseg.mgz").astype(np.int64))
    yield Case("visualqc id001", "FreeSurfer", volume, stripped_mask(volume), labels, labels > 0)
    scan = np.load(data / "labels/voxelmorph_test_scan.npz")
    image = scan["vol"].squeeze().astype(np.float32)
    volume = Volume(torch.from_numpy(image), Grid(image.shape, np.eye(4)))
    labels = tissues_of_freesurfer(scan["seg"].squeeze().astype(np.int64))
    yield Case("voxelmorph scan", "FreeSurfer", volume, stripped_mask(volume), labels, labels > 0)


def phantoms() -> Iterator[Case]:
    """Yield the digital head, one tissue a voxel, in three contrasts with noise and bias."""
    head = digital_head(head_grid(128))
    labels = np.asarray(head.tissues.prob.argmax(0) + 1)
    mask = head.mask
    x, y, z = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in head.grid.shape], indexing="ij")
    bias = (0.25 * (0.8 * x - 0.7 * y * z + 0.5 * z**2)).exp()
    levels = {
        "T1w": (T1W_ORDER, (0.3, 0.65, 1.0)),
        "T2w": (T2W_ORDER, (2.0, 1.0, 0.7)),
        "FLAIR": (FLAIR_ORDER, (0.2, 1.0, 0.75)),
    }
    for contrast, (order, values) in levels.items():
        for noise in (0.03, 0.06):
            clean = torch.tensor((0.0, *values))[torch.from_numpy(labels * mask.numpy())]
            image = add_noise(clean * bias, noise * values[2], seeded(SEED, contrast))
            name = f"phantom {contrast}, noise {noise:.0%} of WM, bias +-25 %"
            yield Case(name, "truth", Volume(image, head.grid), mask, labels, mask.numpy(), order)


def tissues_of_freesurfer(labels: Labels) -> Labels:
    """Return 1 CSF, 2 GM, 3 WM of FreeSurfer codes; others 0."""
    out = np.zeros_like(labels)
    out[np.isin(labels, WHITE)] = 3
    out[np.isin(labels, GREY) | (labels >= 1000)] = 2
    out[np.isin(labels, FLUID)] = 1
    return out


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return the overlap of two masks."""
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


def overlap(case: Case, labels: Labels) -> dict[str, float]:
    """Return one Dice a tissue."""
    return {
        f"dice {name}": dice((labels == k) & case.inside, (case.labels == k) & case.inside)
        for k, name in enumerate(TISSUES, start=1)
    }


def score(case: Case, table: str) -> Row:
    """Segment a case and compare."""
    with measured() as cost:
        found = segment(case.volume, case.mask, HmrfSettings(tissue_order=case.order))
    labels = np.asarray((found.tissues.prob.argmax(0) + 1) * case.mask)
    return {
        "table": table,
        "image": case.name,
        "reference": case.reference,
        "method": found.method,
        **overlap(case, labels),
        "CPU s": cost.cpu_seconds,
        "peak MiB": cost.peak_mib,
        "steps": found.n_iter,
        "converged": found.converged,
    }


def atropos(case: Case, python: str, table: str) -> Row:
    """Segment a case by Atropos in another interpreter; a failed class scores 0."""
    with tempfile.TemporaryDirectory() as folder:
        given, taken = Path(folder) / "case.npz", Path(folder) / "labels.npy"
        mask = case.mask.numpy()
        np.savez(given, image=np.where(mask, case.volume.data.numpy(), 0).astype(np.float32), mask=mask)
        subprocess.run([python, "-c", ATROPOS, str(given), str(taken)], check=True, capture_output=True)
        labels = np.load(taken).astype(np.int64)
    row = {"table": table, "image": case.name, "reference": case.reference, "method": "ANTs Atropos (k-means start)"}
    return {**row, **overlap(case, labels)}


def masks(data: Path) -> Iterator[Row]:
    """Yield one row per image of the recognition of stripped brains, and of the masks of heads."""
    brain, inside = template(data)
    weight = Volume(inside.float(), brain.grid)
    twins = {"visualqc_id001_orig.mgz": "visualqc_id001_brainmask.mgz", "colin27_ch2_head": "colin27_ch2_brain"}
    twins = {k if "." in k else f"{k}.nii.gz": v if "." in v else f"{v}.nii.gz" for k, v in twins.items()}
    paths = [p for folder in ("t1", "ulf") for p in sorted((data / folder).iterdir()) if p.suffix != ".npz"]
    paths += sorted((data / "misc").glob("*.nii.gz"))
    for path in paths:
        volume = read(path)
        row: dict[str, object] = {"table": "Brain masks", "image": path.name, "stripped": is_skull_stripped(volume)}
        with measured() as cost:
            if row["stripped"]:
                mask = stripped_mask(volume)
                row["method"] = "voxels of the brain"
            else:
                found = template_brain_mask(volume, brain, weight)
                mask, row["method"], row["reliable"] = found.mask, found.method, found.reliable
                row["similarity"] = found.similarity
        row["litres"] = float(mask.sum()) * float(np.prod(volume.grid.spacing_mm)) / 1e6
        if path.name in twins:
            row["dice with stripped twin"] = dice(
                mask.numpy(), stripped_mask(read(path.parent / twins[path.name])).numpy()
            )
        yield {**row, "CPU s": cost.cpu_seconds}


def targets(rows: list[Row], python: str | None) -> list[Row]:
    """Return the bars that were set and what came."""
    ours = {str(r["image"]): r for r in rows if r.get("method") == "HMRF-EM"}
    peers = {str(r["image"]): r for r in rows if str(r.get("method", "")).startswith("ANTs")}
    values = {
        name: {k: float(str(v)) for k, v in r.items() if k.startswith(("dice", "CPU", "peak"))}
        for name, r in ours.items()
    }
    icbm = values.get("ICBM-152 template", {})
    phantom = [min(v[f"dice {t}"] for t in TISSUES) for name, v in values.items() if name.startswith("phantom")]
    out = [
        target("ICBM-152 GM Dice", icbm.get("dice GM", math.nan), at_least=0.89),
        target("ICBM-152 WM Dice", icbm.get("dice WM", math.nan), at_least=0.93),
        target("phantoms: lowest Dice of any tissue", min(phantom), at_least=0.90),
        target("most CPU seconds for a brain", max(v["CPU s"] for v in values.values()), at_most=30),
        target("most memory of the process (MiB)", max(v["peak MiB"] for v in values.values()), at_most=2048),
    ]
    for name, peer in peers.items():
        for tissue in ("GM", "WM"):
            gain = values[name][f"dice {tissue}"] - float(str(peer[f"dice {tissue}"]))
            out.append(target(f"{name}: {tissue} Dice minus that of Atropos", gain, at_least=0))
    if not python:
        out.append(target("Dice minus that of Atropos (antspyx absent: not measured)", math.nan, at_least=0))
    twins = [float(str(r["dice with stripped twin"])) for r in rows if "dice with stripped twin" in r]
    return [*out, target("heads: lowest mask Dice with the stripped twin", min(twins, default=math.nan), at_least=0.94)]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--data", type=Path, default=DATA, help="folder of real scans; without it only phantoms run")
    parser.add_argument("--atropos-python", default=None, help="an interpreter that has antspyx")


def run(options: argparse.Namespace, store: object = None) -> tuple[list[Row], list[Row], int]:
    """Measure and return rows, targets and seed; minutes, so nothing is kept in `store`."""
    torch.set_num_threads(1)
    rows: list[Row] = [score(case, "Phantoms (128^3 of 1.5 mm)") for case in phantoms()]
    if options.data.is_dir():
        for case in brains(options.data):
            rows.append(score(case, "Real brains"))
            if options.atropos_python:
                rows.append(atropos(case, options.atropos_python, "Real brains"))
        rows += masks(options.data)
    return rows, targets(rows, options.atropos_python), SEED


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    add_options(arguments)
    print(write_results("segmentation", *run(arguments.parse_args())))
