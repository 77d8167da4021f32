"""Compare simulated scans of one contrast with real ones: mean with mean, person with person, beside baselines."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mrcore.data.grid import Grid
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError, MrkitError
from mrcore.noise_estimate import BACKGROUND
from mrcore.notes import Caution
from mrkit.anatomy.scans import ScanFile, left_out_text
from mrkit.fidelity.measurer import MeasuredScan, Measurer
from mrkit.fidelity.result import ContrastResult, MethodResult, Pictured
from mrkit.files.images import read_scan
from mrkit.files.provenance import distinct_stems
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
Notes = list[str]
SIMULATED, BLUR, BLUR_NOISE, TORCHIO = "Simulated", "Gaussian blur", "Blur, noise matched", "TorchIO-style"


@dataclass(frozen=True, eq=False)
class _Made:
    """Scans of one method: measured, and by person."""

    name: str
    scans: tuple[tuple[str, MeasuredScan], ...]


def compare_contrast(
    weighting: str,
    sim: Sequence[ScanFile],
    real: Sequence[ScanFile],
    source: Sequence[ScanFile],
    seed: int,
    measurer: Measurer,
    begin: Begin,
) -> tuple[ContrastResult, Notes]:
    """Measure and compare the scans of one weighting; return what was found, and what a reader must know of it.

    Where there are sources, baselines are made of them, with noise of `seed`; `begin` is told of each scan.

    Raises:
        BadInputError: no scan of one of the sides can be measured.
    """
    theirs, unmeasured = _measured(real, "real", measurer, begin)
    ours, more = _measured(sim, "simulated", measurer, begin)
    unmeasured += more
    notes = [*unmeasured]
    real_mean = group_mean([m.facts for _, m in theirs], f"real {weighting}")
    made = [_Made(SIMULATED, ours)]
    if source:
        grids = {subject: m.volume.grid for subject, m in theirs}
        baselines, more = _baselines(source, grids, real_mean, seed, measurer, begin)
        made, notes = made + baselines, notes + more
    results = [_result(m, theirs, real_mean, weighting) for m in made if m.scans]
    shown = [("Real", theirs), *((m.name, m.scans) for m in made if m.scans)]
    found = ContrastResult(
        weighting,
        tuple(m.facts for _, m in theirs),
        real_mean,
        tuple(result for result, _ in results),
        tuple(Pictured(title, scans[0][1].volume, scans[0][1].mask) for title, scans in shown),
        tuple(unmeasured),
    )
    return found, notes + [note for _, remarks in results for note in remarks]


def _measured(
    scans: Sequence[ScanFile], side: str, measurer: Measurer, begin: Begin
) -> tuple[tuple[tuple[str, MeasuredScan], ...], Notes]:
    """Measure all scans of a side; one that cannot be measured is left out, and a note says why."""
    found, reasons = [], []
    names = distinct_stems(scan.path for scan in scans)
    for scan in scans:
        begin(f"measuring {names[scan.path]}")
        try:
            found.append((scan.subject, measurer.of_file(scan, f"{side}_{names[scan.path]}")))
        except MrkitError as error:
            reasons.append(left_out_text(names[scan.path], error))
            logger.warning("%s", reasons[-1])
    if not found:
        raise BadInputError(f"no {side} scan could be measured. {reasons[0]}")
    return tuple(found), reasons


def _baselines(
    sources: Sequence[ScanFile],
    grids: Mapping[str, Grid],
    real_mean: ScanFacts,
    seed: int,
    measurer: Measurer,
    begin: Begin,
) -> tuple[list[_Made], Notes]:
    """Degrade every source to the voxels of its real scan (the first one where no person pairs up), and measure it."""
    scans: dict[str, list[tuple[str, MeasuredScan]]] = {BLUR: [], BLUR_NOISE: [], TORCHIO: []}
    notes: Notes = []
    names = distinct_stems(source.path for source in sources)
    for source in sources:
        volume = read_scan(source.path)
        grid = scan_grid_like(volume.grid, grids.get(source.subject, next(iter(grids.values()))))
        blurred = gaussian_blur_degradation(volume, grid)
        # The baselines get the best mask there is: that of the source, as the scan's voxels see it.
        brain = Volume(measurer.brain_of(volume).float(), volume.grid)
        mask = gaussian_blur_degradation(brain, grid).data > 0.5
        levels: dict[str, float] = {}

        def noisy(blurred: Volume = blurred, levels: Mapping[str, float] = levels) -> Volume:
            return with_noise_of(blurred, levels["WM"] / real_mean.own_contrast.snr["WM"], seed)

        def torchio(volume: Volume = volume, grid: Grid = grid) -> Volume:
            return torchio_style_degradation(volume, grid, seed)

        for name, make in ((BLUR, lambda blurred=blurred: blurred), (BLUR_NOISE, noisy), (TORCHIO, torchio)):
            begin(f"{name} of {names[source.path]}")
            key = f"{volume.meta['SourceSHA256']} {name} {seed} {TORCHIO_MIDDLE} {levels}"
            try:
                measured = measurer.of_volume(
                    make(), source.weighting, _file_name(name, names[source.path]), key, mask=mask
                )
            except (MrkitError, KeyError) as error:
                notes.append(Caution(f"{name} of {names[source.path]} was left out: {error}"))
                continue
            scans[name].append((source.subject, measured))
            if name == BLUR:
                contrast = measured.facts.own_contrast
                levels["WM"] = contrast.snr["WM"] * contrast.noise_sd
                levels["target"] = real_mean.own_contrast.snr["WM"]
    return [_Made(name, tuple(found)) for name, found in scans.items()], notes


def _result(
    made: _Made,
    real: Sequence[tuple[str, MeasuredScan]],
    real_mean: ScanFacts,
    weighting: str,
) -> tuple[MethodResult, Notes]:
    """Compare the scans of a method with the real ones: mean with mean, and person with person."""
    facts = tuple(m.facts for _, m in made.scans)
    mean = group_mean(facts, f"{made.name} {weighting}")
    pairs, notes = {}, []
    for subject, ours, theirs in _pairs(made.scans, real):
        correlation, problem = _ncc(ours, theirs)
        pairs[subject] = compare(ours.facts, theirs.facts, correlation)
        if problem:
            notes.append(f"no correlation for {made.name} {subject}: {problem}")
    known = [e.ncc for e in pairs.values() if e.ncc is not None]
    errors = compare(mean, real_mean, sum(known) / len(known) if known else None)
    each = {f.name: compare(f, real_mean) for f in facts}
    notes += too_noisy(made.name, weighting, mean, real_mean)
    return MethodResult(made.name, facts, mean, errors, each, pairs), notes


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
    ours: Sequence[tuple[str, MeasuredScan]], theirs: Sequence[tuple[str, MeasuredScan]]
) -> Iterator[tuple[str, MeasuredScan, MeasuredScan]]:
    """Yield persons who have exactly one scan on either side."""
    for subject, scan in ours:
        real = [m for name, m in theirs if name == subject]
        if len(real) == 1 and sum(name == subject for name, _ in ours) == 1:
            yield subject, scan, real[0]


def _ncc(ours: MeasuredScan, theirs: MeasuredScan) -> tuple[float | None, str]:
    """Return the correlation, or None and why there is none."""
    try:
        return registered_ncc(ours.volume, theirs.volume, theirs.mask), ""
    except MrkitError as error:
        return None, str(error)


def _file_name(method: str, source: str) -> str:
    return f"{method.lower().replace(', ', '-').replace(' ', '-')}_{source}"
