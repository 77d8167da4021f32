"""Published ultra-low-field protocols: acquisition, delivered SNR per tissue, and where each number comes from.

All of them are for adults: no relaxation times of neonates at 64 mT were found, so nothing is claimed for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from mrcore.data.acquisition import Acquisition, PulseSequence, gaussian_psf
from mrcore.data.grid import Triple
from mrcore.data.volume import TISSUES
from mrcore.errors import BadInputError
from mrcore.signals.steady_state import tissue_signals
from mrcore.signals.tissue import TISSUE_TABLE, Tissue


@dataclass(frozen=True)
class Preset:
    """A protocol: `acquisition` without noise, `snr` (signal over noise sd per real channel) per tissue, `source`."""

    name: str
    acquisition: Acquisition
    snr: Mapping[str, float]
    source: str

    def __post_init__(self) -> None:
        if not self.snr or min(self.snr.values()) <= 0:
            raise BadInputError(f"a preset needs a positive SNR for each tissue, got {dict(self.snr)}")
        object.__setattr__(self, "snr", MappingProxyType(dict(self.snr)))


FIELD_T = 0.064
_DELIVERED = MappingProxyType({"WM": 50.8, "GM": 40.1, "CSF": 14.0})
_SNR_SOURCE = (
    "SNR: delivered 64 mT T1w region values WM/GM/CSF 50.8/40.1/14.0, of three published sets the one with the lowest "
    "WM and GM (LUMC scans as used with HULFSynth, Indrakanti & Simpson 2025, arXiv:2511.14897; the others "
    "75.6/62.3/40.1 and 86.8/67.2/12.4; one of these persons at 3 T: 366.6/303.8/142.0)"
)
PSF_SOURCE = "PSF: assumed, truncation and a Gaussian of one voxel FWHM per axis"


def bloch_snr(
    sequence: PulseSequence,
    field_t: float,
    wm_snr: float,
    names: tuple[str, ...] = TISSUES,
    table: Mapping[str, Tissue] = TISSUE_TABLE,
) -> Mapping[str, float]:
    """Return SNR per tissue: Bloch signal ratios of `sequence` at `field_t`, with WM at `wm_snr`.

    Raises:
        BadInputError: names without WM, or a sequence that leaves WM no signal.
    """
    signals = dict(zip(names, tissue_signals(sequence, field_t, names, table), strict=True))
    if not signals.get("WM", 0) > 0:
        raise BadInputError(f"SNRs are relative to WM, which needs a signal; {sequence} gives {signals}")
    return {name: wm_snr * signal / signals["WM"] for name, signal in signals.items()}


def with_wm_snr(preset: Preset, wm_snr: float) -> Preset:
    """Return the preset with all SNRs scaled so that WM has `wm_snr`: another noise, the same contrast.

    Raises:
        BadInputError: an SNR that is not positive, or a preset without WM.
    """
    if wm_snr <= 0 or "WM" not in preset.snr:
        raise BadInputError(f"wm_snr must be positive and the preset must state WM, got {wm_snr} for {preset.name}")
    factor = wm_snr / preset.snr["WM"]
    source = f"{preset.source}; all SNRs scaled to WM {wm_snr:g}"
    return replace(preset, snr={name: factor * value for name, value in preset.snr.items()}, source=source)


def _acquisition(sequence: PulseSequence, voxel_mm: Triple) -> Acquisition:
    return Acquisition(FIELD_T, voxel_mm, sequence, psf=gaussian_psf(voxel_mm))


_T1W = PulseSequence("T1w", tr_s=1.5, te_s=0.005, ti_s=0.3)
_T2W = PulseSequence("T2w", tr_s=2.0, te_s=0.1948, echo_train_length=80)
_FLAIR = PulseSequence("FLAIR", tr_s=3.5, te_s=0.162, ti_s=1.301, echo_train_length=68)
_BLOCH = (
    "SNR: WM 50.8 as delivered for T1w (HULFSynth, arXiv:2511.14897; no published value for this weighting was found), "
    "other tissues by their Bloch signal ratios at 64 mT (relaxation: mrcore; the duration of the echo train, "
    "which the sidecars do not state, is left out)"
)

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            Preset(
                "hyperfine-t1w",
                _acquisition(_T1W, (1.6, 1.6, 5.0)),
                _DELIVERED,
                "Hyperfine Swoop T1w (inversion-prepared FSE): voxels as in real exports; TR/TE/TI 1.5/0.005/0.3 s "
                "from memory, not verified, and used for nothing but the sidecar (by Bloch they would make CSF 0.87 of "
                f"WM, where 0.28 is delivered); {_SNR_SOURCE}; {PSF_SOURCE}",
            ),
            Preset(
                "hyperfine-t2w",
                _acquisition(_T2W, (1.5, 1.5, 5.0)),
                bloch_snr(_T2W, FIELD_T, _DELIVERED["WM"]),
                "Hyperfine Swoop T2w: TR 2.0 s, TE 0.1948 s, ETL 80 (BIDS sidecars of LUMC), voxels as in real "
                f"exports (1.6 mm in plane elsewhere); {_BLOCH}; {PSF_SOURCE}",
            ),
            Preset(
                "hyperfine-flair",
                _acquisition(_FLAIR, (1.7, 1.7, 5.0)),
                bloch_snr(_FLAIR, FIELD_T, _DELIVERED["WM"]),
                "Hyperfine Swoop FLAIR: TR 3.5 s, TE 0.162 s, TI 1.301 s, ETL 68, 1.7 x 1.7 x 5 mm (BIDS sidecars of "
                f"LUMC); {_BLOCH}; {PSF_SOURCE}",
            ),
        )
    }
)
"""Presets by name."""
