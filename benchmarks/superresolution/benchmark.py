"""Super-resolution of ultra-low-field scans: all methods on the same simulated scans, what they cost, and real scans.

Every T1w brain is scanned by the preset hyperfine-t1w (1.6 x 1.6 x 5 mm), once or in three orthogonal stacks. Every
method starts from the same prepared scan, knows the noise from that scan only, and has settings that were chosen
without these brains, but for the denoiser's: its rounds were set on two of them (openms_p26, stroke). In the variant
"perturbed" simulation and fit share neither PSF, pose and lattice nor contrast (see `brains.scan_unlike_the_model` and
`superresolution.scene.GREY_FACTOR`).

A run goes on where an earlier one ended: each method on each scan is kept under a digest of all that decides it, so
that a new method or case recomputes nothing else. `--minutes` bounds the run; what it did not reach is listed, and
counts as not met.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from common.brains import DATA, FILES
from common.results import Row
from common.sources import sources_of
from common.store import Store

from mrcore.data.volume import Volume
from mrcore.errors import MrkitError
from mrkit.report.pictures import intensity_picture, mosaic_picture, sections, window_of
from superresolution.methods import CUBIC, DEFAULT, METHODS, TV, TV_HESSIAN
from superresolution.plan import CONDITIONS, LEFT_OUT, done, plan
from superresolution.published import published
from superresolution.real import real
from superresolution.scene import PRESET, Scene
from superresolution.scores import gains_of, means_of
from superresolution.speed import speed, speed_targets
from superresolution.targets import targets_of

VERSION_OF = sources_of("superresolution.scene", "superresolution.scores")
"""What the scans and their scores depend on; methods add what they depend on (see `sources.version_of`)."""
PARTS = ("simulated", "published", "speed", "real")
KEY_BRAINS = ("stroke", "openms_p26")
"""Brains for further conditions and seeds: the two smallest."""
SHOWN = (CUBIC, TV_HESSIAN, DEFAULT, "default + denoiser")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to run (all)")
    parser.add_argument("--brains", nargs="+", choices=FILES, default=list(FILES), help="default: all")
    parser.add_argument(
        "--key-brains", nargs="*", choices=FILES, default=list(KEY_BRAINS), help="for further conditions and seeds"
    )
    every = [method.name for method in METHODS]
    parser.add_argument("--methods", nargs="+", choices=every, default=every, help="default: all")
    parser.add_argument(
        "--conditions", nargs="*", choices=CONDITIONS, default=list(CONDITIONS), help="for the key brains: all"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2], help="of noise and field (1 2)")
    parser.add_argument("--everything", action="store_true", help="all methods on all brains in every condition: hours")
    parser.add_argument("--minutes", type=float, default=40.0, help="for the simulated scans (%(default)g)")
    parser.add_argument("--voxel", type=float, default=1.0, help="output voxel in mm (1.0)")
    parser.add_argument("--real-voxel", type=float, default=1.5, help="of the fits to real scans in mm (1.5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (%(default)s)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the brains (%(default)s)")
    parser.add_argument("--phantom", action="store_true", help="a small digital head instead of the brains")


def run(options: argparse.Namespace, store: Store) -> tuple[list[Row], list[Row], int]:
    """Return the rows and targets of all parts, and the first seed."""
    torch.set_num_threads(options.threads)
    names = ["phantom"] if options.phantom else list(options.brains)
    key_names = [name for name in (names if options.phantom else options.key_brains) if name in names]
    methods = [method for method in METHODS if method.name in options.methods]
    jobs = plan(methods, names, key_names, options.seeds, options.conditions, options.everything)
    rows: list[Row] = []
    if "simulated" in options.parts:
        rows = list(done(jobs, options, store, _drawing(store.folder)))
    priors = [method.name for method in METHODS if method.prior]
    targets = targets_of(rows, DEFAULT, TV, TV_HESSIAN, priors)
    parts: dict[str, Callable[[], list[Row]]] = {
        "published": lambda: published(methods, names[0], options, store),
        "speed": lambda: speed(options, store),
    }
    if not options.phantom:
        parts["real"] = lambda: real(options.data.parent / "ulf", options.real_voxel, store)
    further = [row for name, work in parts.items() if name in options.parts for row in _part(name, work)]
    targets += speed_targets(further)
    # JSON has no nan.
    targets = [{**entry, "value": None} if entry["value"] != entry["value"] else entry for entry in targets]
    about = {"table": "Settings", "preset": PRESET, "voxel_mm": options.voxel, "threads": options.threads}
    return [*gains_of(rows, TV_HESSIAN), *means_of(rows), *rows, *further, about], targets, options.seeds[0]


def _part(name: str, work: Callable[[], list[Row]]) -> list[Row]:
    """Return the rows of a part; one that fails must not cost what others have found."""
    try:
        return work()
    except MrkitError as error:
        return [{"table": LEFT_OUT, "method": name, "why": str(error)}]


def _drawing(folder: Path) -> Callable[[Scene, Mapping[str, Volume]], None]:
    def draw(scene: Scene, images: Mapping[str, Volume]) -> None:
        """Write the middle planes in rows, the images in columns, all in the truth's window."""
        if DEFAULT not in images:
            return  # a run that only adds to an earlier one, whose picture stays
        truth, mask = scene.goal.reference, scene.goal.mask
        shown = {"truth": truth, "ULF": scene.scans[0]} | {name: images[name] for name in SHOWN if name in images}
        window, planes = window_of(truth, mask), sections(truth.grid, mask)
        folder.mkdir(parents=True, exist_ok=True)
        pictures = [[intensity_picture(image, plane, window) for image in shown.values()] for plane in planes]
        (folder / f"{scene.case.stem}.png").write_bytes(mosaic_picture(pictures))

    return draw
