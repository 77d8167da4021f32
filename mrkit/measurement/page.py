"""The page of `mrkit measure`: tables with intervals, noise, pictures of where it was measured, plots."""

from __future__ import annotations

from pathlib import Path

import torch

from mrcore.data.volume import TissueMap
from mrcore.noise_estimate import BACKGROUND, RESIDUAL
from mrkit.files.provenance import Record
from mrkit.measurement.measured import Measured, range_text
from mrkit.measurement.plots import axis_name, edge_plots, histogram_plot, spectrum_plots
from mrkit.report.pictures import css_colour, intensity_picture, sections, tissue_colour, tissue_picture, window_of
from mrkit.report.report import Fact, Figure, Legend, PlotGroup, Report, TextTable, build_page, format_number
from mrkit.report.words import shape_text, size_text
from ulfsim.measurement.contrast import pairs

_HOW = {
    BACKGROUND: "air around the head",
    RESIDUAL: "second differences within tissue; the air tells nothing (set to 0, filtered, or with ghosts)",
}
_EDGE_TEXT = (
    "Borders that the scan shows, averaged across their edge. The fitted width is that of a Gaussian line spread; the "
    "grey ramp is what an ideal voxel makes of a sharp step. Soft borders widen it: an upper bound of the blur. Tilted "
    "borders are blurred along the other axes as well, which the fit takes out: the mean profile may be wider than it."
)
_AIR_SPECTRUM_TEXT = "From the air around the head. White noise is 1 at all frequencies; filters make it fall."
_RESIDUAL_SPECTRUM_TEXT = (
    "From what remains of tissue after a local mean: anatomy raises low frequencies, and the local mean lowers the "
    "lowest, so the measured curve is not that of noise alone. The kernel comes from second differences, which both "
    "change less."
)


def measure_page(found: Measured, record: Record) -> str:
    """Return the page as HTML text; nothing is fetched, and the same values give the same text."""
    report = measure_report(found, record)
    measured = (tissue_table(found), contrast_table(found), axis_table(found))
    return build_page(report, "measure.html.j2", {"measured": measured, "noise": noise_lines(found)})


def measure_report(found: Measured, record: Record) -> Report:
    """Compose the page's content but for its tables of text."""
    grid = found.volume.grid
    return Report(
        title=f"What {Path(found.name).name} shows",
        record=record,
        summary="Contrast, noise and sharpness of one scan, each with how well it is known. Signals are free of the "
        "bias that Rician noise adds; SNR and CNR are relative to the noise sd of one real channel. Intervals hold "
        "95 %: they answer for noise, anatomy and the noise estimate, not for wrong tissue maps.",
        facts=(
            Fact("Voxels", size_text(grid)),
            Fact("Matrix", shape_text(grid)),
            Fact("Weighting", found.weighting),
            Fact("Tissues by", record.segmenter),
            Fact("Noise from", found.contrast.noise_method),
        ),
        figures=_figures(found),
        planes=("axial", "coronal", "sagittal"),
        groups=_groups(found),
    )


def tissue_table(found: Measured) -> TextTable:
    """Return signal and SNR by tissue; where the noise is bracketed, also the SNR at the least noise."""
    stats = found.contrast
    rows = []
    for name, snr, most_snr, sd, n in zip(
        stats.names, stats.snr, found.least_noise.snr, stats.sd, stats.n_voxels, strict=True
    ):
        cells = [
            f"{stats.mean_of(name):.4g}",
            range_text(stats.mean_interval(name), 4),
            f"{snr:.3g}",
            range_text(stats.snr_interval(name), 3),
            *([f"{most_snr:.3g}"] if found.is_bracketed else []),
            f"{sd:.3g}",
            str(n),
        ]
        rows.append((f"{name} (thin core)" if name in found.thin else name, tuple(cells)))
    white = [("SNR", "at the least noise")] if found.is_bracketed else []
    head = [("Signal", "in the core"), ("95 %", "signal"), ("SNR", ""), ("95 %", "SNR"), *white]
    head += [("Spread", "sd in the core"), ("Core", "voxels")]
    return TextTable("Tissues", "in cores, clear of other tissue", tuple(head), tuple(rows))


def contrast_table(found: Measured) -> TextTable:
    """Return CNR by pair of tissues."""
    stats = found.contrast
    rows = []
    for a, b in pairs(stats.names):
        white = [f"{found.least_noise.cnr(a, b):.3g}"] if found.is_bracketed else []
        interval = range_text(stats.cnr_interval(a, b), 3)
        cells = (f"{stats.cnr(a, b):.3g}", interval, *white, f"{stats.michelson(a, b):.3f}")
        rows.append((f"{a} \N{EN DASH} {b}", cells))
    white_head = [("CNR", "at the least noise")] if found.is_bracketed else []
    head = (("CNR", ""), ("95 %", "CNR"), *white_head, ("Michelson", "(a \N{MINUS SIGN} b) / (a + b)"))
    return TextTable("Contrasts", "difference of signals over the noise sd", head, tuple(rows))


def axis_table(found: Measured) -> TextTable:
    """Return voxel, edge spread and noise kernel along each axis."""
    edges = found.edges
    kernel = found.spectrum.fwhm_mm if found.spectrum else (None, None, None)
    rows = []
    for axis, letter in enumerate(found.orientation):
        widths = (edges.voxel_mm[axis], edges.fwhm_mm[axis], edges.fwhm_voxels[axis])
        cells = (*(format_number(w, 2) for w in widths), str(edges.n_edges[axis]), format_number(kernel[axis], 2))
        rows.append((f"{letter}, {axis_name(letter)}", cells))
    head = (
        ("Voxel", "mm"),
        ("Edge spread", "FWHM, mm"),
        ("Edge spread", "voxels"),
        ("Edges", "fitted"),
        ("Noise kernel", "FWHM, mm; 0 white"),
    )
    return TextTable("Sharpness", "by voxel axis", head, tuple(rows))


def noise_lines(found: Measured) -> tuple[tuple[str, str], ...]:
    """Return what is known of the noise, as names and values."""
    stats = found.contrast
    error = f"\N{PLUS-MINUS SIGN} {196 * stats.noise_error:.0f} % (95 %)"
    lines = [
        ("sd per real channel", f"{stats.noise_sd:.4g} {error}"),
        ("found in", _HOW.get(stats.noise_method, stats.noise_method)),
    ]
    if found.is_bracketed:
        low, high = found.noise_range
        lines[0] = ("sd per real channel", f"{low:.4g} to {high:.4g}; values rest on {stats.noise_sd:.4g}")
    if found.spectrum:
        lines.append(("fills of the band", f"{found.spectrum.white_fraction:.0%} (white noise: 100%)"))
        lines.append(("its colour rests on", f"{found.spectrum.n_voxels} voxels, {found.spectrum.method}"))
    return tuple(lines)


def _figures(found: Measured) -> tuple[Figure, ...]:
    volume, tissues = found.volume, found.tissues
    planes = sections(volume.grid, tissues.mask)
    window = window_of(volume, tissues.mask)
    captions = tuple(plane.caption for plane in planes)
    legend = Legend(tuple(css_colour(tissue_colour(i)) for i in range(len(tissues.names))), tissues.names)
    cores = torch.stack([core.float() for core in found.cores])
    # Where cores are filled up with the best voxels, two tissues may claim one.
    seen = TissueMap(cores / cores.sum(0).clamp_min(1), tissues.names, tissues.grid)

    def overlay(title: str, text: str, maps: TissueMap) -> Figure:
        pictures = tuple(tissue_picture(maps, plane, volume, window) for plane in planes)
        return Figure(title, text, pictures, captions, legend, compared=True)

    stated = f"Voxels as they are; window {window.low:.3g} to {window.high:.3g}."
    scan = tuple(intensity_picture(volume, plane, window) for plane in planes)
    return (
        Figure("Scan", stated, scan, captions, compared=True, focus=True),
        overlay("Tissues", "Are these maps right? Nothing else on this page can tell.", tissues),
        overlay("Cores", "Voxels that signal and SNR were measured in.", seen),
    )


def _groups(found: Measured) -> tuple[PlotGroup, ...]:
    is_residual = found.spectrum is not None and found.spectrum.method == RESIDUAL
    spectrum_text = _RESIDUAL_SPECTRUM_TEXT if is_residual else _AIR_SPECTRUM_TEXT
    groups = (
        PlotGroup("Edge spread", _EDGE_TEXT, edge_plots(found)),
        PlotGroup("Noise spectrum", spectrum_text, spectrum_plots(found)),
        PlotGroup(
            "Intensities",
            "Every voxel of the brain, shared out by its tissue probabilities.",
            (histogram_plot(found),),
        ),
    )
    return tuple(group for group in groups if group.plots)
