"""Super-resolution of simulated 64 mT scans: the per-subject INR against interpolation, Tikhonov and Huber-TV.

Every T1w brain is scanned by the preset hyperfine-t1w (1.6 x 1.6 x 5 mm). Every method starts from the same prepared
scan, knows the noise from that scan only, and has settings that were chosen without these brains. In the variant
"perturbed" simulation and fit share neither PSF nor lattice (see `brains.scan_unlike_the_model`).
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from brains import DATA, FILES, Brain, load_brain, phantom_brain, scan_unlike_the_model, truth_on
from results import Cost, Row, measured
from store import Store
from torch import Tensor
from tqdm import tqdm

from inr.baselines import cubic, huber_tv, tikhonov, trilinear
from inr.data import OneScan
from inr.fit import fit
from mrcore.metrics import Scores, Target, score_against, score_target, score_tissues
from mrcore.segment import segment
from mrcore.volume import TissueMap, Volume
from mrkit.api import simulate_ulf
from mrkit.lattice import inner
from mrkit.pictures import intensity_picture, mosaic_picture, sections, window_of
from mrkit.prepare import PreparedScan, prepare
from ulfsim.presets import PRESETS

VERSION_OF = (
    *(
        "mrcore",
        "ulfsim",
        "inr",
        "mrkit/simulation.py",
        "mrkit/superresolution.py",
        "mrkit/lattice.py",
        "mrkit/prepare.py",
        "mrkit/segmenters.py",
    ),
    *("benchmarks/superresolution.py", "benchmarks/brains.py", "benchmarks/results.py"),
)
PRESET = "hyperfine-t1w"
TARGET_SNR = 50.0
FIT_SECONDS = 180.0
NOMINAL, PERTURBED = "nominal", "perturbed"
IMAGES, TISSUES, COSTS, GAINS = (
    "Images",
    "Tissues and contrast",
    "Costs",
    "INR minus others (positive: the INR is better)",
)
REGIONS = ("whole", "inside")
SCORES: Mapping[str, tuple[str, int]] = {
    "psnr_db": ("PSNR dB", 1),
    "ssim": ("SSIM", 1),
    "nrmse": ("NRMSE", -1),
    "gradient_error": ("gradient error", -1),
    "edge_f1_0": ("F1@0", 1),
    "edge_f1_1": ("F1@1", 1),
}
"""Scores by their fields: the column's name, and the sign of what is better."""
BEATEN = ("psnr_db", "edge_f1_0", "edge_f1_1", "gradient_error")
"""Scores over the whole mask in which the INR has to beat cubic interpolation."""


@dataclass(frozen=True)
class Case:
    """One scan to be made and super-resolved."""

    brain: str
    wm_snr: float
    seed: int
    variant: str

    def labels(self) -> dict[str, object]:
        """Return what tells the case in a row."""
        return {"brain": self.brain, "WM SNR": self.wm_snr, "seed": self.seed, "scan": self.variant}


@dataclass(frozen=True, eq=False)
class Result:
    """What a method made of a scan: an image on the output grid, own tissues if it finds any, and what it cost."""

    image: Volume
    cost: Cost
    settled: bool | None = None
    tissues: TissueMap | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--brains", nargs="+", choices=FILES, default=list(FILES), help="default: all")
    parser.add_argument("--wm-snr", nargs="+", type=float, default=[TARGET_SNR], help="SNRs of white matter (50)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], help="of noise and field (1)")
    parser.add_argument("--voxel", type=float, default=1.0, help="output voxel in mm (1.0)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (%(default)s)")
    parser.add_argument("--perturb", action="store_true", help="add scans with a PSF and a lattice unknown to the fit")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the brains (%(default)s)")
    parser.add_argument("--phantom", action="store_true", help="a small digital head instead of the brains")


def run(options: argparse.Namespace, store: Store) -> tuple[list[Row], list[Row], int]:
    """Return the rows and targets of all cases, and the first seed."""
    torch.set_num_threads(options.threads)
    names = ["phantom"] if options.phantom else list(options.brains)
    variants = (NOMINAL, PERTURBED) if options.perturb else (NOMINAL,)
    settings = list(itertools.product(options.wm_snr, options.seeds, variants))
    rows: list[Row] = []
    with tqdm(total=len(names) * len(settings), desc="scans", disable=None) as progress:
        for name in names:
            rows += _rows_of([Case(name, *s) for s in settings], options, store, progress)
    about = {"table": "Settings", "preset": PRESET, "voxel_mm": options.voxel, "threads": options.threads}
    gains = list(gains_of(rows))
    return [*gains, *rows, about], goals(gains, rows, names), options.seeds[0]


def _rows_of(cases: Sequence[Case], options: argparse.Namespace, store: Store, progress: tqdm) -> list[Row]:
    """Return the rows of all cases of one brain, which is loaded only if something is missing."""
    source = "phantom" if options.phantom else _digest(options.data / FILES[cases[0].brain])
    fixed = {"voxel_mm": options.voxel, "threads": options.threads, "source": source}
    brain: Brain | None = None
    rows: list[Row] = []
    for case in cases:
        key = {**case.labels(), **fixed}
        found = store.load(key)
        if found is None:
            progress.set_postfix_str(f"{case.brain}, WM SNR {case.wm_snr:g}, {case.variant}")
            brain = _load(case.brain, options) if brain is None else brain
            found = examine(brain, case, options.voxel, store.folder)
            store.save(key, found)
        rows += found
        progress.update()
    return rows


def _digest(path: Path) -> str:
    # A file that is missing is reported, with what to do, where it is loaded.
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"


def _load(name: str, options: argparse.Namespace) -> Brain:
    acquisition = PRESETS[PRESET].acquisition
    if options.phantom:
        return phantom_brain(acquisition, options.voxel)
    return load_brain(options.data / FILES[name], acquisition, options.voxel)


def examine(brain: Brain, case: Case, voxel_mm: float, pictures: Path) -> list[Row]:
    """Scan a brain, super-resolve it by every method, return all rows and draw a picture into a folder."""
    made = simulate_ulf(brain.volume, preset=PRESET, tissues=brain.tissues, wm_snr=case.wm_snr, seed=case.seed)
    scan = made.scan
    if case.variant == PERTURBED:
        scan = scan_unlike_the_model(made.truth, made.scan.grid, made.acquisition, case.seed)
    scan = Volume(scan.data, scan.grid, {**scan.meta, "SkullStripped": True})
    with measured() as cost:
        ready = prepare(scan, voxel_mm=voxel_mm)
    results = methods(ready, case.seed)
    truth, tissues, mask = truth_on(made.truth, brain.tissues, brain.mask, ready.output_grid)
    goal = score_target(truth, mask, tissues)
    scores = {name: score_against(goal, result.image) for name, result in results.items()}
    images = {"truth": truth, "ULF": scan} | {name: results[name].image for name in ("cubic", "Huber-TV", "INR")}
    _draw(images, mask, pictures / f"{_stem(case, voxel_mm)}.png")
    extent = inner(Volume(ready.tissues.mask.float(), ready.lattice), truth.grid).data > 0.5
    return [
        *(_image_row(case, name, score) for name, score in scores.items()),
        *_tissue_rows(case, goal, results, scores, extent),
        _cost_row(case, "(preparation, shared)", cost, None),
        *(_cost_row(case, name, result.cost, result.settled) for name, result in results.items()),
        *({"table": "Notes", **case.labels(), "note": note} for note in _notes(made.notes, ready.notes)),
    ]


def _notes(simulation: Sequence[str], preparation: Sequence[str]) -> Iterator[str]:
    """Yield what was remarked on this scan; the protocol is that of all."""
    yield from (f"simulation: {note}" for note in simulation if not note.startswith("protocol:"))
    yield from (f"preparation: {note}" for note in preparation)


def methods(ready: PreparedScan, seed: int) -> dict[str, Result]:
    """Run every method on one prepared scan."""
    scan, lattice, operator, noise_sd = ready.scan, ready.lattice, ready.operator, ready.noise_sd
    with measured() as of_trilinear:
        linear = trilinear(scan, lattice).data
    with measured() as of_cubic:
        begin = cubic(scan, lattice).data
    with measured() as of_tikhonov:
        smooth = tikhonov(operator, scan.data, noise_sd, begin, lattice.spacing_mm)
    with measured() as of_tv:
        tv = huber_tv(operator, scan.data, noise_sd, ready.start, lattice.spacing_mm)
    with measured() as of_inr:
        fitted = fit(
            OneScan(scan.data, operator, noise_sd),
            lattice,
            ready.start[None],
            ready.foreground,
            ready.tissues,
            seed,
            None,
            ready.resegment,
        )
    prob = torch.stack([inner(Volume(p, lattice), ready.output_grid).data for p in fitted.prob])
    own = TissueMap(prob, ready.tissues.names, ready.output_grid)
    return {
        "trilinear": Result(_rendered(ready, linear), of_trilinear),
        "cubic": Result(_rendered(ready, begin), of_cubic),
        "Tikhonov CG": Result(_rendered(ready, smooth.x.clamp_min(0)), of_tikhonov, smooth.converged),
        "Huber-TV": Result(_rendered(ready, tv.x), of_tv, tv.converged),
        "INR": Result(_rendered(ready, fitted.image), of_inr, fitted.solution.converged, own),
    }


def _rendered(ready: PreparedScan, image: Tensor) -> Volume:
    return inner(Volume(image * ready.scale, ready.lattice), ready.output_grid)


def _image_row(case: Case, method: str, scores: Scores) -> Row:
    row = {"table": IMAGES, **case.labels(), "method": method}
    for name, (column, _) in SCORES.items():
        row |= {f"{column} {region}": getattr(getattr(scores, region), name) for region in REGIONS}
    return {**row, "MSLC": scores.mslc, "MSLC of truth": scores.reference_mslc}


def _tissue_rows(
    case: Case, goal: Target, results: Mapping[str, Result], scores: Mapping[str, Scores], mask: Tensor
) -> Iterator[Row]:
    """Yield Dice of each image's own segmentation, beside that of the truth's, and the WM-GM contrast."""
    assert goal.tissues is not None
    # The truth has its own mask: that of a scan is wider, and holds the zeros around the truth.
    found = {"truth, segmented alike": segment(goal.reference, goal.mask).tissues}
    found |= {name: segment(result.image, mask).tissues for name, result in results.items()}
    found |= {f"{name}, own tissues": r.tissues for name, r in results.items() if r.tissues is not None}
    for name, tissues in found.items():
        dice = {t: values["dice"] for t, values in score_tissues(goal.tissues, tissues).items()}
        row = {"table": TISSUES, **case.labels(), "method": name}
        row |= {f"Dice {t}": value for t, value in dice.items()} | {"mean Dice": sum(dice.values()) / len(dice)}
        if name in scores and (contrast := scores[name].contrast) and (reference := scores[name].reference_contrast):
            row |= {"Michelson WM-GM": contrast.michelson, "Michelson of truth": reference.michelson}
            row |= {"ratio to truth": contrast.michelson / reference.michelson}
        yield row


def _cost_row(case: Case, method: str, cost: Cost, settled: bool | None) -> Row:
    row = {"table": COSTS, **case.labels(), "method": method, "seconds": cost.seconds}
    row |= {"CPU seconds": cost.cpu_seconds, "peak MiB": cost.peak_mib}
    return row if settled is None else {**row, "settled": settled}


def gains_of(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield what the INR gains over cubic and over TV in each case, positive where it is better."""
    images = [row for row in rows if row["table"] == IMAGES]
    labels = [field for field in images[0] if field in ("brain", "WM SNR", "seed", "scan")]
    by_case = {(*(row[k] for k in labels), row["method"]): row for row in images}
    for row in images:
        if row["method"] != "INR":
            continue
        for other in ("cubic", "Huber-TV"):
            beside = by_case[(*(row[k] for k in labels), other)]
            gain = {"table": GAINS, **{k: row[k] for k in labels}, "minus": other}
            for column, sign in SCORES.values():
                for region in REGIONS:
                    name = f"{column} {region}"
                    gain[name] = sign * (float(str(row[name])) - float(str(beside[name])))
            yield gain


def goals(gains: Sequence[Row], rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """Return all targets of these brains, for the worst seed; what was not measured is not met."""
    out: list[Row] = []
    for brain in names:
        chosen = [g for g in gains if _at_target(g, brain) and g["minus"] == "cubic"]
        for score in BEATEN:
            column, sign = SCORES[score]
            worst = min((float(str(g[f"{column} whole"])) for g in chosen), default=None)
            better = "better (lower) than" if sign < 0 else "above"
            name = f"{brain}: INR {better} cubic, {column}, whole mask, WM SNR {TARGET_SNR:g}"
            out.append({"name": name, "target": "> 0", "value": worst, "met": worst is not None and worst > 0})
        fits = [row for row in rows if row["table"] == COSTS and row["method"] == "INR" and _at_target(row, brain)]
        longest = max((float(str(row["seconds"])) for row in fits), default=None)
        met = longest is not None and longest < FIT_SECONDS
        name = f"{brain}: seconds of the fit, WM SNR {TARGET_SNR:g}"
        out.append({"name": name, "target": f"< {FIT_SECONDS:g}", "value": longest, "met": met})
    return out


def _at_target(row: Row, brain: str) -> bool:
    return row["brain"] == brain and row["WM SNR"] == TARGET_SNR and row["scan"] == NOMINAL


def _draw(images: Mapping[str, Volume], mask: Tensor, path: Path) -> None:
    """Write the middle planes in rows, the images in columns, all in the truth's window."""
    truth = images["truth"]
    window = window_of(truth, mask)
    planes = sections(truth.grid, mask)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(mosaic_picture([[intensity_picture(i, p, window) for i in images.values()] for p in planes]))


def _stem(case: Case, voxel_mm: float) -> str:
    return f"{case.brain}_snr{case.wm_snr:g}_seed{case.seed}_{case.variant}_{voxel_mm:g}mm"
