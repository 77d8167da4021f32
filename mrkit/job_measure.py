"""Measure one scan from its file, and tell it as a table or as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from mrcore.errors import BadInputError
from mrcore.sidecar import finite
from mrcore.volume import TissueMap, Volume
from mrkit.jobs import Job, read_subject
from mrkit.prepare import find_tissues, usable
from mrkit.report import format_number
from ulfsim.edge_spread import EdgeSpread, edge_spread
from ulfsim.measure import ContrastStats, coloured_noise, measure, pairs, tissue_cores
from ulfsim.spectrum import NoiseSpectrum, noise_spectrum


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of a scan; `spectrum` is None where its noise shows no colour to read."""

    image: Path
    weighting: str
    orientation: str
    contrast: ContrastStats
    spectrum: NoiseSpectrum | None
    edges: EdgeSpread
    notes: tuple[str, ...]


def measure_file(job: Job) -> Measured:
    """Read the scan, find its tissues, and measure it.

    Raises:
        BadInputError: a file that cannot be used, a brain or tissues that cannot be found.
        GridMismatchError: mask or tissues on another grid.
        MissingExtraError: the segmenter or the masker is not installed.
    """
    subject = read_subject(job)
    notes: list[str] = []
    volume = usable(subject.volume)
    tissues = find_tissues(volume, subject.tissues, subject.mask, subject.segmenter, notes)
    contrast = measure(volume, tissues, noise=coloured_noise(volume, tissues))
    spectrum = _spectrum(volume, tissues, notes)
    edges = edge_spread(volume, tissues.mask)
    said = (*notes, *contrast.notes, *(spectrum.notes if spectrum else ()), *edges.notes)
    orientation = volume.grid.orientation
    return Measured(job.image, subject.weighting, orientation, contrast, spectrum, edges, tuple(dict.fromkeys(said)))


def as_json(found: Measured) -> str:
    """Return all of it as JSON; what is not finite becomes null."""
    stats = found.contrast
    tissues = {
        name: {
            "mean": stats.mean_of(name),
            "mean_interval": stats.mean_interval(name),
            "snr": snr,
            "snr_interval": stats.snr_interval(name),
            "sd": sd,
            "n_voxels": n_voxels,
        }
        for name, snr, sd, n_voxels in zip(stats.names, stats.snr, stats.sd, stats.n_voxels, strict=True)
    }
    values = {
        "image": str(found.image),
        "weighting": found.weighting,
        "tissues": tissues,
        "cnr": {
            f"{a}-{b}": {"cnr": stats.cnr(a, b), "cnr_interval": stats.cnr_interval(a, b)}
            for a, b in pairs(stats.names)
        },
        "noise": {"sd": stats.noise_sd, "method": stats.noise_method, "relative_error": stats.noise_error},
        "noise_spectrum": asdict(found.spectrum) if found.spectrum else None,
        "edge_spread": {
            "axes": found.orientation,
            "fwhm_mm": found.edges.fwhm_mm,
            "voxel_mm": found.edges.voxel_mm,
            "n_edges": found.edges.n_edges,
        },
        "notes": found.notes,
    }
    return json.dumps(finite(values), indent=2, ensure_ascii=False)


def as_text(found: Measured) -> str:
    """Return the figures as lines for a reader."""
    stats, edges = found.contrast, found.edges
    rows: list[tuple[str, ...]] = [("tissue", "mean", "95 %", "SNR", "95 %", "voxels")]
    for name, snr, n in zip(stats.names, stats.snr, stats.n_voxels, strict=True):
        mean = stats.mean_of(name)
        mean_range, snr_range = _range(stats.mean_interval(name), 4), _range(stats.snr_interval(name), 3)
        rows.append((name, f"{mean:.4g}", mean_range, f"{snr:.3g}", snr_range, str(n)))
    contrasts: list[tuple[str, ...]] = [("contrast", "CNR", "95 %")]
    for a, b in pairs(stats.names):
        contrasts.append((f"{a}-{b}", f"{stats.cnr(a, b):.3g}", _range(stats.cnr_interval(a, b), 3)))
    axes: list[tuple[str, ...]] = [("axis", "voxel mm", "edge spread mm", "in voxels", "noise kernel mm")]
    kernel = found.spectrum.fwhm_mm if found.spectrum else (None, None, None)
    for axis in range(3):
        widths = (edges.voxel_mm[axis], edges.fwhm_mm[axis], edges.fwhm_voxels[axis], kernel[axis])
        axes.append((found.orientation[axis], *(format_number(w, 2) for w in widths)))
    noise = f"noise sd {stats.noise_sd:.4g} +- {196 * stats.noise_error:.0f} % ({stats.noise_method})"
    if found.spectrum:
        noise += f"; it fills {found.spectrum.white_fraction:.0%} of the band"
    head = f"{found.image} ({found.weighting})"
    notes = [f"note: {note}" for note in found.notes]
    return "\n".join([head, *_lined(rows), "", *_lined(contrasts), "", noise, "", *_lined(axes), *notes])


def _spectrum(volume: Volume, tissues: TissueMap, notes: list[str]) -> NoiseSpectrum | None:
    core = max(tissue_cores(tissues)[0], key=lambda each: int(each.sum()))
    try:
        return noise_spectrum(volume, tissues.mask, core)
    except BadInputError as error:
        notes.append(str(error))
        return None


def _range(interval: tuple[float, float], n_digits: int) -> str:
    return " to ".join(f"{end:.{n_digits}g}" for end in interval)


def _lined(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
