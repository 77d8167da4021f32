"""Which methods run on which scans, in the order of what matters, as far as the minutes last."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from common.brains import Brain
from common.results import Row
from common.sources import version_of
from common.store import Store
from tqdm import tqdm

from mrcore.data.volume import Volume
from mrcore.errors import MrkitError
from superresolution.methods import Method
from superresolution.scene import NOMINAL, PERTURBED, THREE, Case, Scene, load, scene_of, source_of
from superresolution.scores import TRUTH, examined, examined_truth
from superresolution.targets import LOW_SNR, TARGET_SNR
from superresolution.volumes import labels_of

NETWORKS = ("SIREN", "Gabor", "HULFSynth", "default, intensity alone")
"""Methods that cost much and are known to win nothing: last, on every brain all the same."""
CONDITIONS: Mapping[str, tuple[float, str]] = {
    "snr20": (LOW_SNR, NOMINAL),
    "stacks": (TARGET_SNR, THREE),
    "perturbed": (TARGET_SNR, PERTURBED),
    "snr10": (10.0, NOMINAL),
}
"""WM SNR and scan by the names of the command line, in the order of interest."""
LEFT_OUT = "Left out"


@dataclass(frozen=True)
class Job:
    """Methods to run on one case."""

    case: Case
    methods: tuple[Method, ...]


def plan(
    methods: Sequence[Method],
    names: Sequence[str],
    key_names: Sequence[str],
    seeds: Sequence[int],
    conditions: Sequence[str],
    everything: bool,
) -> list[Job]:
    """Return the jobs, the most telling first.

    At SNR 50 every method runs on every brain with the first seed. In each further condition, and at SNR 50 with each
    further seed, run the key methods on `key_names`; `everything` runs all methods on all brains with all seeds there.
    """
    wanted = [where for name, where in CONDITIONS.items() if name in conditions]
    others = tuple(names) if everything else tuple(key_names)
    main = [Case(name, TARGET_SNR, seeds[0], NOMINAL) for name in names]
    further = [Case(n, snr, seeds[0], scan) for (snr, scan), n in itertools.product(wanted, others)]
    repeated = [(TARGET_SNR, NOMINAL), *(wanted if everything else [])]
    repeats = [
        Case(name, snr, seed, scan) for seed in seeds[1:] for (snr, scan), name in itertools.product(repeated, others)
    ]
    first = tuple(m for m in methods if m.key)
    second = tuple(m for m in methods if not m.key and m.name not in NETWORKS)
    last = tuple(m for m in methods if m.name in NETWORKS)
    chosen = tuple(m for m in methods if m.key or everything)
    jobs = [
        *(Job(case, first) for case in main),
        *(Job(case, _possible(case, chosen)) for case in further),
        *(Job(case, each) for each in (second, last) for case in main),
        *(Job(case, _possible(case, chosen)) for case in repeats),
    ]
    return [job for job in jobs if job.methods]


def _possible(case: Case, methods: Sequence[Method]) -> tuple[Method, ...]:
    return tuple(m for m in methods if m.stacks or case.scan != THREE)


def done(
    jobs: Sequence[Job],
    options: argparse.Namespace,
    store: Store,
    draw: Callable[[Scene, Mapping[str, Volume]], None],
) -> Iterator[Row]:
    """Yield the rows of all jobs: kept ones, and new ones while there are minutes left; what is left out is said."""
    end = time.monotonic() + 60 * options.minutes
    brains: dict[str, Brain] = {}

    def scene_for(case: Case) -> Scene:
        if case.brain not in brains:
            brains.clear()  # one at a time: they fill gigabytes
            brains[case.brain] = load(case.brain, options.data, options.voxel)
        labels = labels_of(case.brain, options.data.parent)
        return scene_of(brains[case.brain], case, options.voxel, labels)

    with tqdm(total=sum(len(job.methods) for job in jobs), desc="methods", disable=None) as progress:
        seen: set[Case] = set()
        for job in jobs:
            # What is common to a case comes once.
            shared = () if job.case in seen else (None,)
            seen.add(job.case)
            yield from _rows_of(job.case, (*shared, *job.methods), options, store, scene_for, draw, end, progress)


def _rows_of(
    case: Case,
    methods: Sequence[Method | None],
    options: argparse.Namespace,
    store: Store,
    scene_for: Callable[[Case], Scene],
    draw: Callable[[Scene, Mapping[str, Volume]], None],
    end: float,
    progress: tqdm,
) -> Iterator[Row]:
    fixed = {**case.labels(), "voxel_mm": options.voxel, "source": source_of(case.brain, options)}
    scene: Scene | None = None
    images: dict[str, Volume] = {}
    for method in methods:
        name = TRUTH if method is None else method.name
        key = {**fixed, "method": name, "version": "" if method is None else version_of(method.run)}
        rows = store.load(key)
        if rows is None and time.monotonic() < end:
            progress.set_postfix_str(f"{case.stem}, {name}")
            scene = scene_for(case) if scene is None else scene
            try:
                rows = (
                    examined_truth(scene) if method is None else examined(scene, method, case.seed, images.__setitem__)
                )
                store.save(key, rows)
            except MrkitError as error:
                # One method that fails on one scan must not cost the others.
                rows = [{"table": LEFT_OUT, **case.labels(), "method": name, "why": str(error)}]
        yield from rows if rows is not None else [{"table": LEFT_OUT, **case.labels(), "method": name, "why": "time"}]
        progress.update(method is not None)
    if scene is not None and images:
        draw(scene, images)
