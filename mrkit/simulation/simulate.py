"""The verb `simulate_ulf`: a high-field scan in, an ultra-low-field one out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from torch import Tensor

from mrcore.data.acquisition import Acquisition
from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.io.bids.resolution import stated_psf
from mrcore.io.bids.values import number as stated_number
from mrcore.notes import Caution, prefixed
from mrcore.scans import as_scan
from mrcore.segmentation.brainmask import is_skull_stripped
from mrcore.segmentation.tissues import Segmenter
from mrcore.signals.steady_state import tissue_signals
from mrcore.spatial.cropping import crop_to
from mrkit.anatomy.finding import find_tissues, weighting
from mrkit.progress import stages
from mrkit.simulation.protocol import NO_CHANGES, Changes, Gauge, changed, preset_named
from ulfsim.artefacts.artefacts import NO_ARTEFACTS, Artefacts
from ulfsim.artefacts.draws import ArtefactRange, draw_artefacts
from ulfsim.calibration.gains import Calibration
from ulfsim.matching.like import mean_like, preset_like
from ulfsim.matching.matched import matched
from ulfsim.measurement.contrast import measure
from ulfsim.plan import plan_scan, tissues_through, with_margin
from ulfsim.protocols.presets import Preset, with_wm_snr
from ulfsim.published import published_simulation
from ulfsim.simulation import Simulation, calibrated_simulation
from ulfsim.source.source import Source
from ulfsim.source.synthetic import source_for
from ulfsim.source.window import touches_edge


@dataclass(frozen=True, eq=False, repr=False)
class SimulatedScan:
    """A simulated scan and how it was made.

    Attributes:
        scan: the magnitude, on its own grid.
        truth: the noise-free object in the scan's contrast, undisturbed, on the source's grid.
        tissues: on the source's grid.
        scan_tissues: as the scan's voxels see them, on its grid.
        mask: brain (bool), on the source's grid.
        preset: the protocol, with the SNRs that were aimed at.
        calibration: gains and noise, and how well determined they are.
        simulation: complex channels, operator, artefacts, and all else that the scan was made from.
        notes: what a reader of the result must know.
    """

    scan: Volume
    truth: Volume
    tissues: TissueMap
    scan_tissues: TissueMap
    mask: Tensor
    preset: Preset
    calibration: Calibration
    simulation: Simulation
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"SimulatedScan({self.preset.name}; {self.scan.grid.summary}; noise sd {self.acquisition.noise_sd:.3g})"

    def _repr_html_(self) -> str:
        from mrkit.report.notebook import notebook_html
        from mrkit.report.pictures import intensity_picture, sections, window_of

        gains = ", ".join(f"{name} {gain:.3g}" for name, gain in self.calibration.gains.items())
        facts = {"Protocol": self.preset.name, "Scan": self.scan.grid.summary, "Gains": gains}
        facts |= {"Noise sd": f"{self.acquisition.noise_sd:.3g}", "Notes": "; ".join(self.notes)}
        plane, window = sections(self.truth.grid, self.mask)[0], window_of(self.truth, self.mask)
        shown = (("Truth", self.truth), ("Scan", self.scan))
        pictures = [(name, intensity_picture(image, plane, window)) for name, image in shown]
        return notebook_html("Simulated scan", facts, pictures)

    @property
    def acquisition(self) -> Acquisition:
        """What was simulated, with its noise."""
        return self.simulation.acquisition


def simulate_ulf(
    volume: Volume,
    *,
    preset: str | Preset = "hyperfine-t1w",
    like: Volume | Sequence[Volume] = (),
    like_tissues: Sequence[TissueMap] = (),
    changes: Changes = NO_CHANGES,
    wm_snr: float | None = None,
    gauge: Gauge = Gauge.ABSOLUTE,
    artefacts: Artefacts | ArtefactRange = NO_ARTEFACTS,
    pixel_bandwidth_hz: float | None = None,
    tissues: TissueMap | None = None,
    mask: Tensor | None = None,
    segmenter: Segmenter | None = None,
    seed: int = 0,
) -> SimulatedScan:
    """Simulate an ultra-low-field scan of a high-field `volume`.

    Where the scan's tissues come in another order of brightness than the source's (T2w or FLAIR from T1w), its
    contrast is synthesised from the tissue maps, and a note says so.

    Args:
        volume: magnitude image, with or without its skull.
        preset: name in `ulfsim.PRESETS`, or a preset of your own (see `ulfsim.bloch_preset`); not used with `like`.
        like: one or more real scans whose voxels, SNRs, noise colour and edge spread are taken over; of several scans
            the mean, with SNRs drawn from their distribution.
        like_tissues: tissue maps of these scans; found otherwise.
        changes: to the protocol.
        wm_snr: SNR of white matter, scaling all targets.
        gauge: what fixes the gains where contrasts leave them free.
        artefacts: what disturbs the scan; ranges are drawn from.
        pixel_bandwidth_hz: readout bandwidth per voxel, in place of that of the range of `artefacts`; by default
            `PixelBandwidth` of the real scans.
        tissues: tissue maps on the grid of `volume`; found by `segmenter` otherwise.
        mask: brain mask (bool, X, Y, Z); found otherwise.
        segmenter: what finds tissues; mrkit's HMRF-EM by default.
        seed: of all that is drawn.

    Raises:
        BadInputError: an unknown preset, an image that cannot be used, or values out of range.
        GridMismatchError: mask or tissues on another grid.
    """
    chosen = preset_named(preset) if isinstance(preset, str) and not like else preset
    references = (like,) if isinstance(like, Volume) else tuple(like)
    volume, doubts = as_scan(volume)
    with stages(3 if references else 2) as begin:
        begin("finding brain and tissues")
        tissues, found = find_tissues(volume, tissues, mask, segmenter)
        notes = [*doubts, *found]
        if references:
            begin("measuring the real scan")
            chosen, measured = _preset_of(references, like_tissues, volume, tissues, seed)
            notes += measured
        chosen = changed(cast("Preset", chosen), changes)
        if wm_snr is not None:
            chosen = with_wm_snr(chosen, wm_snr)
        begin("calibrating and simulating")
        padded, seen = volume, tissues
        margin_mm = max(chosen.acquisition.voxel_mm)
        if touches_edge(volume, margin_mm):
            # The lattice is one period of the operator: the object's ends would mix.
            padded, seen = with_margin(volume, tissues, margin_mm)
            notes.append(
                f"the object reaches the edge of its field of view: {margin_mm:g} mm of zeros were put around it"
            )
        if isinstance(artefacts, ArtefactRange):
            artefacts, stated = _at_bandwidth(artefacts, pixel_bandwidth_hz, references)
            notes += stated
        elif pixel_bandwidth_hz is not None:
            raise BadInputError("a pixel bandwidth changes artefacts that are drawn; give a range of artefacts, too")
        disturbed = _drawn(artefacts, padded, chosen.acquisition, seed)
        calibration, made, synthesised = _simulated(padded, seen, chosen, gauge, disturbed, seed)
        notes += [*synthesised, *made.notes, *calibration.warnings, f"protocol: {chosen.source}"]
    # A brain over noisy air cannot be told from a head by its looks.
    scan = Volume(made.scan.data, made.scan.grid, {**made.scan.meta, "SkullStripped": is_skull_stripped(volume)})
    return SimulatedScan(
        scan=scan,
        truth=crop_to(made.truth, volume.grid),
        tissues=tissues,
        scan_tissues=tissues_through(plan_scan(padded.grid, made.acquisition), seen),
        mask=tissues.mask,
        preset=chosen,
        calibration=calibration,
        simulation=made,
        notes=tuple(dict.fromkeys(notes)),
    )


def _simulated(
    volume: Volume,
    tissues: TissueMap,
    preset: Preset,
    gauge: Gauge,
    artefacts: Artefacts,
    seed: int,
) -> tuple[Calibration, Simulation, Sequence[str]]:
    if gauge is Gauge.NONE:
        return *published_simulation(volume, tissues, preset, seed, artefacts=artefacts), ()
    source, notes = source_for(volume, tissues, preset.snr)
    prior = _bloch_ratios(source, preset) if gauge is Gauge.PRIOR else None
    return *calibrated_simulation(source, preset, seed, prior=prior, artefacts=artefacts), notes


def _bloch_ratios(source: Source, preset: Preset) -> dict[str, float]:
    """Return the ratio of each tissue's Bloch signal in the scan to its level in the source."""
    acquisition = preset.acquisition
    signals = tissue_signals(acquisition.sequence, acquisition.field_t, source.names)
    return {name: signal / level for name, signal, level in zip(source.names, signals, source.levels, strict=True)}


def _preset_of(
    references: Sequence[Volume],
    given: Sequence[TissueMap],
    volume: Volume,
    tissues: TissueMap,
    seed: int,
) -> tuple[Preset, Sequence[str]]:
    """Return the preset that the real scans stand for, as far as `volume` lets one simulate it, and what was found."""
    if given and len(given) != len(references):
        raise BadInputError(f"{len(references)} reference scans need as many tissue maps, got {len(given)}")
    presets, notes = [], []
    for number, reference in enumerate(references):
        scan, doubts = as_scan(reference)
        own, found = find_tissues(scan, given[number] if given else None)
        stats = measure(scan, own)
        # The most noise that a scan leaves open may swallow a tissue; the least is then what can be simulated.
        usable = stats if min(stats.snr) > 0 else (stats.ends or (stats,))[0]
        preset = preset_like(scan, usable, weighting(scan))
        source, _ = source_for(volume, tissues, preset.snr)
        match = matched(preset, scan, own, source, seed)
        _, acquired = stated_psf(scan.meta, scan.grid)
        about = (*found, *stats.notes, *acquired, *match.notes)
        notes += [*doubts, *(prefixed("reference scan: ", note) for note in about)]
        presets.append(match.preset)
    if len(presets) == 1:
        return presets[0], notes
    mean, target = mean_like(presets)
    # By content: images of two people may have one name, and shall not have one draw.
    return replace(mean, snr=target.draw(seed, str(volume.meta.get("SourceSHA256", "")))), notes


def _at_bandwidth(
    artefacts: ArtefactRange, given_hz: float | None, references: Sequence[Volume]
) -> tuple[ArtefactRange, tuple[str, ...]]:
    """Return the range at the bandwidth that the user or the sidecars of the real scans state."""
    if given_hz is not None:
        return replace(artefacts, bandwidth_hz=(given_hz, given_hz)), ()
    try:
        found = [hz for scan in references if (hz := stated_number(scan.meta, "PixelBandwidth")) is not None]
    except BadInputError as error:
        return artefacts, (Caution(f"reference scan: {error}; the bandwidth is drawn"),)
    if not found:
        return artefacts, ()
    low, high = min(found), max(found)
    listed = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    note = f"artefacts: readout of {listed} Hz per voxel, PixelBandwidth of the reference scan"
    return replace(artefacts, bandwidth_hz=(low, high)), (note,)


def _drawn(artefacts: Artefacts | ArtefactRange, volume: Volume, acquisition: Acquisition, seed: int) -> Artefacts:
    if isinstance(artefacts, Artefacts):
        return artefacts
    grid = plan_scan(volume.grid, acquisition).scan_grid
    return draw_artefacts(artefacts, grid, seed, "mrkit.simulate_ulf:artefacts")
