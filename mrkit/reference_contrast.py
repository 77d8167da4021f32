"""A super-resolved image in the contrast of a high-field scan, by the gains that the simulator calibrates."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from torch import Tensor

from mrcore.bids_sequence import sequence_from_sidecar
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator
from mrcore.volume import TissueMap, Volume
from mrkit.contrast_mapping import MappedContrast, levels_without_gains, map_contrast, tissue_levels
from mrkit.prepare import psf_of, usable, weighting
from mrkit.protocol import Gauge
from mrkit.simulation import simulate_ulf
from mrkit.trust import target_variance
from ulfsim.contrast import BlochSpread, bloch_spread
from ulfsim.like import preset_like
from ulfsim.measure import measure
from ulfsim.plan import tissues_seen

RELATIVE_SD = 0.05
"""Spread of the target levels over which their influence is stated."""


@dataclass(frozen=True, eq=False)
class ReferenceContrast:
    """An image in the contrast of a high-field scan.

    `mapped` holds it, `gains` (tissue -> factor) are those that take the reference to the contrast of the scan, and
    `variance` is the mean over the brain of the variance of the mapped image where the target levels vary by 5 %,
    relative to WM = 1 (HULFSynth reports 2e-3 of the same figure).
    """

    mapped: MappedContrast
    gains: Mapping[str, float]
    variance: float

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of the contrast."""
        gains = ", ".join(f"{name} {gain:.3f}" for name, gain in self.gains.items())
        said = f"mapped contrast: gains {gains}; its variance over targets that vary by 5 % is {self.variance:.1e}"
        warnings = (f"mapped contrast: {warning}" for warning in self.mapped.warnings)
        return self.mapped.message, f"{said} (WM = 1)", *warnings


def require_same_weighting(own: str, reference: Volume) -> None:
    """Raise BadInputError where no curve can map a scan (BIDS suffix): the reference has another weighting."""
    other = weighting(reference)
    if own != other:
        raise BadInputError(
            f"the scan is {own} and the contrast reference {other}: tissues have another order of brightness, and no "
            f"rising curve maps one to the other; give a {own} reference"
        )


def in_contrast_of(
    reference: Volume,
    scan: Volume,
    image: Volume,
    tissues: TissueMap,
    *,
    scan_weighting: str | None = None,
    gauge: Gauge = Gauge.ABSOLUTE,
    reference_tissues: TissueMap | None = None,
    reference_mask: Tensor | None = None,
    seed: int = 0,
) -> ReferenceContrast:
    """Map `image`, super-resolved from `scan`, to the contrast of `reference`, a high-field scan of any person.

    The simulator is calibrated to take the reference to the tissue SNRs of the scan; its gains are then undone, at the
    levels of the tissues, by one rising curve. Nothing of the reference's anatomy enters.

    Args:
        reference: high-field image of the scan's weighting, with or without its skull.
        scan: the ultra-low-field scan.
        image: what was made of it.
        tissues: of `image`, on its grid.
        scan_weighting: BIDS suffix of the scan; by its sidecar or name otherwise.
        gauge: what fixes the gains; `Gauge.NONE` takes contrasts alone, as published by HULFSynth.
        reference_tissues: on the reference's grid; found otherwise.
        reference_mask: brain of the reference (bool); found otherwise.
        seed: of the targets drawn for `variance`.

    Raises:
        BadInputError: another weighting, or tissues of another order of brightness.
    """
    scan, reference = usable(scan), usable(reference)
    scan_weighting = scan_weighting or weighting(scan)
    require_same_weighting(scan_weighting, reference)
    seen = tissues_seen(imaging_operator(tissues.grid, scan.grid, psf_of(scan, [])), tissues, scan.grid)
    preset = preset_like(scan, measure(scan, seen), scan_weighting)
    made = simulate_ulf(
        reference, preset=preset, tissues=reference_tissues, mask=reference_mask, gauge=gauge, seed=seed
    )
    gains = made.calibration.gains
    own = tissue_levels(image, tissues)
    undone = levels_without_gains(own, gains)
    # One factor for all tissues says nothing: WM stays as bright as it is.
    target = {tissue: level * own["WM"] / undone["WM"] for tissue, level in undone.items()}
    name = reference.meta.get("SourceFile", "the reference")
    mapped = map_contrast(
        image,
        tissues,
        target,
        f"that of {name} ({made.calibration.gauge})",
        reference=tissue_levels(reference, made.tissues),
        predicted=_predicted(reference),
    )
    return ReferenceContrast(mapped, gains, target_variance(image, tissues, target, seed, RELATIVE_SD))


def _predicted(reference: Volume) -> BlochSpread | None:
    """Return what the Bloch equations say of the reference, where its sidecar states sequence and field."""
    with suppress(BadInputError):
        found = sequence_from_sidecar(reference.meta)
        if found.field_t is not None:
            return bloch_spread(found.sequence, found.field_t)
    return None
