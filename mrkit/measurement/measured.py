"""What was measured of one scan: as values for JSON and as a table for a terminal."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import cast

from torch import Tensor

from mrcore.data.grid import Triple
from mrcore.data.volume import TissueMap, Volume
from mrcore.io.sidecar import finite
from mrcore.notes import Caution
from mrkit.report.report import format_number
from ulfsim.measurement.contrast import ContrastStats, pairs
from ulfsim.measurement.edge_spread import EdgeSpread
from ulfsim.measurement.spectrum import NoiseSpectrum

_N_ENOUGH = 200
"""Voxels below which a core is called thin, as in `ulfsim.measurement.contrast.tissue_cores`."""


@dataclass(frozen=True, eq=False, repr=False)
class Measured:
    """What was measured of a scan.

    Attributes:
        name: of the scan, such as its file.
        weighting: of the scan, as the segmentation took it.
        volume: the scan; `tissues` on its grid, and `cores` (X, Y, Z, bool) of them, in which it was measured.
        contrast: means, SNR and CNR, and the noise that they rest on.
        acquired_mm: voxel size that the scan's band asks for along each axis; its own unless it was interpolated.
        spectrum: of the noise; None where it shows no colour to read.
        edges: edge spread by axis.
        notes: what a reader must know.
    """

    name: str
    weighting: str
    volume: Volume
    tissues: TissueMap
    cores: tuple[Tensor, ...]
    contrast: ContrastStats
    acquired_mm: Triple
    spectrum: NoiseSpectrum | None
    edges: EdgeSpread
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        snr = ", ".join(f"{n} {v:.3g}" for n, v in zip(self.contrast.names, self.contrast.snr, strict=True))
        return f"Measured({self.name}, {self.weighting}; SNR {snr}; {self.volume.grid.summary})"

    def _repr_html_(self) -> str:
        from mrkit.report.notebook import notebook_html
        from mrkit.report.pictures import intensity_picture, sections, tissue_picture, window_of

        stats = self.contrast
        facts = {f"SNR {name}": range_text(stats.snr_interval(name), 3) + " (95 %)" for name in stats.names}
        facts |= {"Noise sd": f"{stats.noise_sd:.4g}, from {stats.noise_method}", "Notes": "; ".join(self.notes)}
        mask = self.tissues.mask
        plane, window = sections(self.volume.grid, mask)[0], window_of(self.volume, mask)
        tissues = tissue_picture(self.tissues, plane, self.volume, window)
        return notebook_html(
            self.name, facts, [("Scan", intensity_picture(self.volume, plane, window)), ("Tissues", tissues)]
        )

    @property
    def orientation(self) -> str:
        """Body side that each voxel axis points to, such as RAS."""
        return self.volume.grid.orientation

    @property
    def noise_range(self) -> tuple[float, float]:
        """Least and most noise sd that air and residuals leave open."""
        return self.contrast.noise_range

    @property
    def least_noise(self) -> ContrastStats:
        """The contrast at the least noise; `contrast` itself where the noise is known."""
        return self.contrast.ends[0] if self.contrast.ends else self.contrast

    @property
    def is_bracketed(self) -> bool:
        """Whether the noise is only known to lie between two values that differ."""
        return bool(self.contrast.ends)

    @property
    def thin(self) -> tuple[str, ...]:
        """Tissues whose core is small, or not pure: their values say less than their intervals."""
        stats = self.contrast
        return tuple(name for name, n in zip(stats.names, stats.n_voxels, strict=True) if n < _N_ENOUGH)


def as_values(found: Measured) -> dict[str, object]:
    """Return all of it as JSON values; what is not finite becomes None."""
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
    noise = {
        "sd": stats.noise_sd,
        "method": stats.noise_method,
        "relative_error": stats.noise_error,
        "sd_range": found.noise_range,
        "snr_at_least_noise": dict(zip(found.least_noise.names, found.least_noise.snr, strict=True)),
    }
    values = {
        "image": found.name,
        "weighting": found.weighting,
        "tissues": tissues,
        "cnr": {
            f"{a}-{b}": {"cnr": stats.cnr(a, b), "cnr_interval": stats.cnr_interval(a, b)}
            for a, b in pairs(stats.names)
        },
        "noise": noise,
        "noise_spectrum": asdict(found.spectrum) if found.spectrum else None,
        "acquired_voxel_mm": found.acquired_mm,
        "edge_spread": {
            "axes": found.orientation,
            "fwhm_mm": found.edges.fwhm_mm,
            "voxel_mm": found.edges.voxel_mm,
            "n_edges": found.edges.n_edges,
        },
        "notes": found.notes,
    }
    return cast("dict[str, object]", finite(values))


def as_json(found: Measured) -> str:
    """Return `as_values` as text."""
    return json.dumps(as_values(found), indent=2, ensure_ascii=False, allow_nan=False)


def as_text(found: Measured) -> str:
    """Return the figures as lines for a reader, with the notes that are no cautions: those are printed as warnings."""
    stats, edges = found.contrast, found.edges
    rows: list[tuple[str, ...]] = [("tissue", "mean", "95 %", "SNR", "95 %", "voxels")]
    for name, snr, n in zip(stats.names, stats.snr, stats.n_voxels, strict=True):
        mean = stats.mean_of(name)
        mean_range, snr_range = range_text(stats.mean_interval(name), 4), range_text(stats.snr_interval(name), 3)
        rows.append((name, f"{mean:.4g}", mean_range, f"{snr:.3g}", snr_range, str(n)))
    contrasts: list[tuple[str, ...]] = [("contrast", "CNR", "95 %")]
    for a, b in pairs(stats.names):
        contrasts.append((f"{a}-{b}", f"{stats.cnr(a, b):.3g}", range_text(stats.cnr_interval(a, b), 3)))
    axes: list[tuple[str, ...]] = [("axis", "voxel mm", "edge spread mm", "in voxels", "noise kernel mm")]
    kernel = found.spectrum.fwhm_mm if found.spectrum else (None, None, None)
    for axis in range(3):
        widths = (edges.voxel_mm[axis], edges.fwhm_mm[axis], edges.fwhm_voxels[axis], kernel[axis])
        axes.append((found.orientation[axis], *(format_number(w, 2) for w in widths)))
    noise = f"noise sd {stats.noise_sd:.4g} +- {196 * stats.noise_error:.0f} % ({stats.noise_method})"
    if found.is_bracketed:
        noise = (
            f"noise sd {range_text(found.noise_range, 4)}; values rest on {stats.noise_sd:.4g} ({stats.noise_method})"
        )
    if found.spectrum:
        noise += f"; it fills {found.spectrum.white_fraction:.0%} of the band"
    head = f"{found.name} ({found.weighting})"
    notes = [f"note: {note}" for note in found.notes if not isinstance(note, Caution)]
    return "\n".join([head, *_lined(rows), "", *_lined(contrasts), "", noise, "", *_lined(axes), *notes])


def range_text(interval: tuple[float, float], n_digits: int) -> str:
    """Return an interval for a reader."""
    return " to ".join(f"{end:.{n_digits}g}" for end in interval)


def _lined(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
