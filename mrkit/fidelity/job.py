"""Compare folders of simulated and real scans: facts of each, baselines from the sources, page and JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mrcore.data.grid import Grid
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError, MrkitError
from mrcore.io.atomic import atomic_write
from mrcore.io.sidecar import finite, stem
from mrcore.io.volumes import load_volume
from mrcore.noise_estimate import BACKGROUND
from mrkit.anatomy.brain import usable
from mrkit.anatomy.scans import ScanFile, find_scans
from mrkit.fidelity.measurer import Measured, Measurer, Segmenting
from mrkit.fidelity.page import build_fidelity_page
from mrkit.fidelity.result import ContrastResult, FidelityResult, MethodResult, Pictured, result_to_json
from mrkit.files.outputs import check_targets, write_page
from mrkit.files.provenance import input_files, installed_versions
from mrkit.progress import stages
from ulfsim.degradations import (
    TORCHIO_MIDDLE,
    gaussian_blur_degradation,
    scan_grid_like,
    torchio_style_degradation,
    with_noise_of,
)
from ulfsim.measurement.facts import ScanFacts, group_mean
from ulfsim.measurement.fidelity import compare, registered_ncc

logger = logging.getLogger(__name__)

Begin = Callable[[str], None]
SIMULATED, BLUR, BLUR_NOISE, TORCHIO = "Simulated", "Gaussian blur", "Blur, noise matched", "TorchIO-style"


@dataclass(frozen=True)
class FidelityJob:
    """What to compare: folders (or files) of simulated and real scans, sources for the baselines, and where to write.

    `weighting` overrides what names and sidecars say of all images; `seed` is that of the baselines' noise.
    """

    sim: Path
    real: Path
    out: Path
    source: Path | None = None
    segmenting: Segmenting = field(default_factory=Segmenting)
    weighting: str | None = None
    seed: int = 0
    force: bool = False

    @property
    def page(self) -> Path:
        """The HTML page."""
        return self.out / "fidelity.html"

    @property
    def table(self) -> Path:
        """The same as JSON."""
        return self.out / "fidelity.json"


@dataclass(frozen=True, eq=False)
class _Made:
    """Scans of one method: measured, and by person."""

    name: str
    scans: tuple[tuple[str, Measured], ...]


def fidelity_files(job: FidelityJob) -> list[Path]:
    """Compare, write page and JSON, and return them.

    Raises:
        BadInputError: folders without images, contrasts that are not on both sides, results that exist.
    """
    sims = find_scans(job.sim, "--sim", job.weighting)
    reals = find_scans(job.real, "--real", job.weighting)
    sources = find_scans(job.source, "--source", job.weighting) if job.source else ()
    files = [scan.path for scan in (*sims, *reals, *sources)]
    check_targets([], [job.page, job.table], files, force=job.force)
    shared, notes = _shared_weightings(sims, reals)
    notes += _about_sources(job, sources, shared)
    measurer = Measurer(job.out / "facts", job.segmenting)
    n_baselines = 3 * sum(s.weighting in shared for s in sources)
    n_scans = sum(s.weighting in shared for s in (*sims, *reals))
    contrasts = []
    with stages(n_scans + n_baselines) as begin:
        for weighting in shared:
            real, sim, source = ([s for s in side if s.weighting == weighting] for side in (reals, sims, sources))
            contrasts.append(_contrast(weighting, sim, real, source, job, measurer, notes, begin))
    result = FidelityResult(
        tuple(contrasts),
        tuple(notes),
        input_files(_roles(sims, reals, sources)),
        _parameters(job),
        installed_versions(),
    )
    page = build_fidelity_page(result)
    with atomic_write(job.table, force=job.force) as temporary:
        temporary.write_text(json.dumps(finite(result_to_json(result)), indent=1) + "\n", encoding="utf-8")
    return [write_page(page, job.page, force=job.force), job.table]


def _shared_weightings(sims: Iterable[ScanFile], reals: Iterable[ScanFile]) -> tuple[list[str], list[str]]:
    ours, theirs = ({s.weighting for s in side} for side in (sims, reals))
    shared = sorted(ours & theirs)
    if not shared:
        raise _no_common(ours, theirs)
    left = sorted(ours ^ theirs)
    return shared, [f"{name} is on one side only and was left out" for name in left]


def _no_common(ours: set[str], theirs: set[str]) -> BadInputError:
    return BadInputError(
        f"the simulated scans are {', '.join(sorted(ours))} and the real ones {', '.join(sorted(theirs))}; nothing can "
        "be compared. Name the contrast at the end of the files (_T1w, _T2w, _FLAIR) or give --weighting"
    )


def _about_sources(job: FidelityJob, sources: Sequence[ScanFile], shared: Sequence[str]) -> list[str]:
    if job.source is None:
        return ["no high-field sources were given (--source), so the baselines were not run"]
    missing = [weighting for weighting in shared if weighting not in {s.weighting for s in sources}]
    return [f"no source is {weighting}, so the baselines were not run for it" for weighting in missing]


def _contrast(
    weighting: str,
    sim: Sequence[ScanFile],
    real: Sequence[ScanFile],
    source: Sequence[ScanFile],
    job: FidelityJob,
    measurer: Measurer,
    notes: list[str],
    begin: Begin,
) -> ContrastResult:
    """Measure and compare the scans of one weighting."""
    theirs = _measured(real, "real", measurer, notes, begin)
    ours = _measured(sim, "simulated", measurer, notes, begin)
    real_mean = group_mean([m.facts for _, m in theirs], f"real {weighting}")
    made = [_Made(SIMULATED, ours)]
    if source:
        grids = {subject: m.volume.grid for subject, m in theirs}
        made += _baselines(source, grids, real_mean, job, measurer, notes, begin)
    methods = tuple(_result(m, theirs, real_mean, weighting, notes) for m in made if m.scans)
    shown = [("Real", theirs), *((m.name, m.scans) for m in made if m.scans)]
    return ContrastResult(
        weighting,
        tuple(m.facts for _, m in theirs),
        real_mean,
        methods,
        tuple(Pictured(title, scans[0][1].volume, scans[0][1].mask) for title, scans in shown),
    )


def _measured(
    scans: Sequence[ScanFile], side: str, measurer: Measurer, notes: list[str], begin: Begin
) -> tuple[tuple[str, Measured], ...]:
    """Measure all scans of a side; one that cannot be measured is left out and said so."""
    found, reasons = [], []
    for scan in scans:
        begin(f"measuring {scan.path.name}")
        try:
            found.append((scan.subject, measurer.of_file(scan, side)))
        except MrkitError as error:
            reasons.append(f"{scan.path.name} was left out: {error}")
            logger.warning("%s", reasons[-1])
    if not found:
        raise BadInputError(f"no {side} scan could be measured. {reasons[0]}")
    notes += reasons
    return tuple(found)


def _baselines(
    sources: Sequence[ScanFile],
    grids: Mapping[str, Grid],
    real_mean: ScanFacts,
    job: FidelityJob,
    measurer: Measurer,
    notes: list[str],
    begin: Begin,
) -> list[_Made]:
    """Degrade every source to the voxels of its real scan (the first one where no person pairs up), and measure it."""
    scans: dict[str, list[tuple[str, Measured]]] = {BLUR: [], BLUR_NOISE: [], TORCHIO: []}
    for source in sources:
        volume = usable(load_volume(source.path))
        grid = scan_grid_like(volume.grid, grids.get(source.subject, next(iter(grids.values()))))
        blurred = gaussian_blur_degradation(volume, grid)
        # The baselines get the best mask there is: that of the source, as the scan's voxels see it.
        brain = Volume(measurer.brain_of(volume).float(), volume.grid)
        mask = gaussian_blur_degradation(brain, grid).data > 0.5
        levels: dict[str, float] = {}

        def noisy(blurred: Volume = blurred, levels: Mapping[str, float] = levels) -> Volume:
            return with_noise_of(blurred, levels["WM"] / real_mean.own_contrast.snr["WM"], job.seed)

        def torchio(volume: Volume = volume, grid: Grid = grid) -> Volume:
            return torchio_style_degradation(volume, grid, job.seed)

        for name, make in ((BLUR, lambda blurred=blurred: blurred), (BLUR_NOISE, noisy), (TORCHIO, torchio)):
            begin(f"{name} of {source.path.name}")
            key = f"{volume.meta['SourceSHA256']} {name} {job.seed} {TORCHIO_MIDDLE} {levels}"
            try:
                measured = measurer.of_volume(make(), source.weighting, _file_name(name, source), key, mask=mask)
            except (MrkitError, KeyError) as error:
                notes.append(f"{name} of {source.path.name} was left out: {error}")
                continue
            scans[name].append((source.subject, measured))
            if name == BLUR:
                contrast = measured.facts.own_contrast
                levels["WM"] = contrast.snr["WM"] * contrast.noise_sd
                levels["target"] = real_mean.own_contrast.snr["WM"]
    return [_Made(name, tuple(found)) for name, found in scans.items()]


def _result(
    made: _Made,
    real: Sequence[tuple[str, Measured]],
    real_mean: ScanFacts,
    weighting: str,
    notes: list[str],
) -> MethodResult:
    """Compare the scans of a method with the real ones: mean with mean, and person with person."""
    facts = tuple(m.facts for _, m in made.scans)
    mean = group_mean(facts, f"{made.name} {weighting}")
    pairs = {}
    for subject, ours, theirs in _pairs(made.scans, real):
        pairs[subject] = compare(ours.facts, theirs.facts, _ncc(ours, theirs, f"{made.name} {subject}", notes))
    known = [e.ncc for e in pairs.values() if e.ncc is not None]
    errors = compare(mean, real_mean, sum(known) / len(known) if known else None)
    each = {f.name: compare(f, real_mean) for f in facts}
    notes += too_noisy(made.name, weighting, mean, real_mean)
    return MethodResult(made.name, facts, mean, errors, each, pairs)


def too_noisy(name: str, weighting: str, mean: ScanFacts, real: ScanFacts) -> list[str]:
    """Return a note where residuals agree but the air shows more noise than even ghosts leave in the real scan's."""
    if real.noise_method == BACKGROUND or not all(BACKGROUND in facts.contrast for facts in (mean, real)):
        return []
    ratio = real.contrast[BACKGROUND].snr["WM"] / max(mean.contrast[BACKGROUND].snr["WM"], 1e-6)
    if ratio < 1.2:
        return []
    return [
        f"{weighting}, {name}: its air is {ratio:.1f} times as noisy, relative to white matter, as the air of the real "
        "scans with all their ghosts; the noise is too strong even where second differences in tissue agree"
    ]


def _pairs(
    ours: Sequence[tuple[str, Measured]], theirs: Sequence[tuple[str, Measured]]
) -> Iterator[tuple[str, Measured, Measured]]:
    """Yield persons who have exactly one scan on either side."""
    for subject, scan in ours:
        real = [m for name, m in theirs if name == subject]
        if len(real) == 1 and sum(name == subject for name, _ in ours) == 1:
            yield subject, scan, real[0]


def _ncc(ours: Measured, theirs: Measured, what: str, notes: list[str]) -> float | None:
    try:
        return registered_ncc(ours.volume, theirs.volume, theirs.mask)
    except MrkitError as error:
        notes.append(f"no correlation for {what}: {error}")
        return None


def _file_name(method: str, source: ScanFile) -> str:
    return f"{method.lower().replace(', ', '-').replace(' ', '-')}_{stem(source.path)}"


def _roles(sims: Sequence[ScanFile], reals: Sequence[ScanFile], sources: Sequence[ScanFile]) -> dict[str, Path]:
    sides = (("simulated", sims), ("real", reals), ("source", sources))
    return {f"{side} {n}": scan.path for side, scans in sides for n, scan in enumerate(scans, start=1)}


def _parameters(job: FidelityJob) -> dict[str, object]:
    return {
        "segmenter": job.segmenting.segmenter,
        "masker": job.segmenting.masker,
        "labels": "beside" if job.segmenting.use_labels else "none",
        "weighting": job.weighting or "by sidecar or name",
        "seed": job.seed,
        BLUR: "Gaussian of one scan voxel FWHM per axis; no noise, no change of contrast",
        BLUR_NOISE: "the same, with complex noise that gives white matter the SNR of the real scans",
        TORCHIO: f"blur sd {TORCHIO_MIDDLE.blur_sd_mm:g} mm, nearest slices, noise sd {TORCHIO_MIDDLE.noise_sd:g} of "
        "that of the foreground: the middle of TorchIO's default ranges",
    }
