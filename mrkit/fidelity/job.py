"""Compare folders of simulated and real scans: facts of each, baselines from the sources, page and JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mrcore.errors import BadInputError
from mrkit.anatomy.scans import ScanFile, find_scans, usable_scans
from mrkit.fidelity.compare import BLUR, BLUR_NOISE, TORCHIO, compare_contrast
from mrkit.fidelity.measurer import Measurer, Segmenting
from mrkit.fidelity.page import fidelity_page
from mrkit.fidelity.result import FidelityResult, result_to_json
from mrkit.files.outputs import check_outputs, json_output, text_output, write_results
from mrkit.files.provenance import Record
from mrkit.files.warn import warn_of
from mrkit.progress import stages
from ulfsim.degradations import TORCHIO_MIDDLE


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


def fidelity_files(job: FidelityJob) -> tuple[list[Path], tuple[str, ...]]:
    """Compare, write page and JSON; return them, and why images were left out.

    Raises:
        BadInputError: folders without images that can be used, contrasts that are not on both sides, results that
            exist.
    """
    sims = find_scans(job.sim, "--sim", job.weighting)
    reals = find_scans(job.real, "--real", job.weighting)
    sources = find_scans(job.source, "--source", job.weighting) if job.source else ()
    files = [scan.path for scan in (*sims, *reals, *sources)]
    check_outputs([], [job.page, job.table], files, force=job.force)
    shared, notes = _shared_weightings(sims, reals)
    sides = ((sims, "--sim"), (reals, "--real"), (sources, "--source"))
    found = [usable_scans([s for s in side if s.weighting in shared], name) for side, name in sides]
    sims, reals, sources = (good for good, _ in found)
    left_out = [text for _, texts in found for text in texts]
    shared, more = _shared_weightings(sims, reals)
    notes += [*left_out, *more]
    notes += _about_sources(job, sources, shared)
    measurer = Measurer(job.out / "facts", job.segmenting)
    n_baselines = 3 * sum(s.weighting in shared for s in sources)
    n_scans = sum(s.weighting in shared for s in (*sims, *reals))
    contrasts = []
    with stages(n_scans + n_baselines) as begin:
        for weighting in shared:
            real, sim, source = ([s for s in side if s.weighting == weighting] for side in (reals, sims, sources))
            compared, remarks = compare_contrast(weighting, sim, real, source, job.seed, measurer, begin)
            contrasts.append(compared)
            left_out += compared.left_out
            notes += remarks
    result = FidelityResult(tuple(contrasts))
    warn_of(notes)
    record = Record(_roles(sims, reals, sources), None, _parameters(job), tuple(notes))
    page = text_output(job.page, fidelity_page(result, record))
    table = json_output(job.table, {**result_to_json(result, record), "left_out": left_out}, indent=1)
    return write_results([page, table], {}, force=job.force), tuple(left_out)


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
