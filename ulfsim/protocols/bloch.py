"""Contrast from the Bloch equations: presets for any sequence and field, and how uncertain their contrast is.

This is the a-priori mode, for where no scan and no published SNR is at hand. The SNR of the whole scan (that of WM) is
still to be given: what a scanner delivers depends on coil, averaging and reconstruction more than on the field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.data.acquisition import Acquisition, PulseSequence, gaussian_psf
from mrcore.data.grid import Triple
from mrcore.data.volume import TISSUES
from mrcore.errors import BadInputError
from mrcore.random import seeded
from mrcore.signals.steady_state import sequence_signal
from mrcore.signals.tissue import TISSUE_TABLE, Tissue, relaxation
from ulfsim.protocols.presets import PSF_SOURCE, Preset, bloch_snr

_LEAST_SIGNAL = 1e-3  # of WM: a tissue that is nulled exactly has no SNR that could be aimed at


@dataclass(frozen=True)
class BlochSpread:
    """Signals of the tissues `names` relative to WM, as the tissue table predicts them.

    `low` and `high` are the 5th and 95th percentile over relaxation times and PD drawn from the table's spreads.
    `wm_gm` is the Michelson contrast (WM - GM) / (WM + GM), with its percentiles.
    """

    names: tuple[str, ...]
    relative: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    wm_gm: tuple[float, float, float]


def bloch_preset(
    sequence: PulseSequence,
    field_t: float,
    voxel_mm: Triple,
    wm_snr: float,
    *,
    names: tuple[str, ...] = TISSUES,
    table: Mapping[str, Tissue] = TISSUE_TABLE,
    slice_axis: str = "S",
) -> Preset:
    """Return the preset of a scan with `wm_snr` in WM and the Bloch signals of `sequence` at `field_t` elsewhere.

    A tissue that the sequence nulls gets a thousandth of the SNR of WM, since a target must be positive. The point
    spread is the default one: truncation and a Gaussian of one voxel.

    Raises:
        BadInputError: a sequence without TR or TE, a field that the table does not cover, or an SNR that is not
            positive.
    """
    if not 0 < wm_snr < math.inf:
        raise BadInputError(f"wm_snr must be positive and finite, got {wm_snr}")
    snr = bloch_snr(sequence, field_t, wm_snr, names, table)
    nulled = [name for name, value in snr.items() if value < _LEAST_SIGNAL * wm_snr]
    snr = {name: max(value, _LEAST_SIGNAL * wm_snr) for name, value in snr.items()}
    sources = dict.fromkeys(text for name in names for text in relaxation(name, field_t, table).sources)
    source = (
        f"SNR: WM {wm_snr:g} as given, other tissues by their Bloch signal ratios at {field_t:g} T"
        + (f" ({', '.join(nulled)} nulled)" if nulled else "")
        + f"; relaxation: {'; '.join(sources)}; {PSF_SOURCE}"
    )
    acquisition = Acquisition(field_t, voxel_mm, sequence, psf=gaussian_psf(voxel_mm), slice_axis=slice_axis)
    return Preset(f"bloch-{sequence.weighting}-{field_t:g}T".lower(), acquisition, snr, source)


def bloch_spread(
    sequence: PulseSequence,
    field_t: float,
    names: tuple[str, ...] = TISSUES,
    table: Mapping[str, Tissue] = TISSUE_TABLE,
    *,
    n_draws: int = 4000,
    seed: int = 0,
) -> BlochSpread:
    """Return the signals relative to WM and their uncertainty, from draws of T1, T2 and PD within their spreads.

    Each is uniform between value - spread and value + spread (half the range of published values), independently of
    the others, so that the order of GM and WM may be less certain here than it is in one person.

    Raises:
        BadInputError: as `bloch_preset`; names without WM and GM.
    """
    if not {"WM", "GM"} <= set(names):
        raise BadInputError(f"contrast is given relative to WM and against GM; the tissues are {list(names)}")
    generator = seeded(seed, "ulfsim.contrast:spread")
    drawn = {name: _drawn_signals(sequence, field_t, name, table, n_draws, generator) for name in names}
    relative = torch.stack([drawn[name] / drawn["WM"] for name in names])
    michelson = (drawn["WM"] - drawn["GM"]) / (drawn["WM"] + drawn["GM"])
    # The first draw is the table's value itself.
    ends = torch.tensor([0.05, 0.95], dtype=torch.float64)
    low, high = torch.quantile(relative[:, 1:], ends, dim=1).tolist()
    contrast_low, contrast_high = torch.quantile(michelson[1:], ends).tolist()
    contrast = (float(michelson[0]), contrast_low, contrast_high)
    return BlochSpread(names, tuple(relative[:, 0].tolist()), tuple(low), tuple(high), contrast)


def _drawn_signals(
    sequence: PulseSequence,
    field_t: float,
    name: str,
    table: Mapping[str, Tissue],
    n_draws: int,
    generator: torch.Generator,
) -> Tensor:
    """Return signals (1 + n_draws) of one tissue: that of the table's values, then those of the draws."""
    tissue = relaxation(name, field_t, table)
    values = ((tissue.pd, tissue.pd_spread), (tissue.t1_s, tissue.t1_spread_s), (tissue.t2_s, tissue.t2_spread_s))
    drawn = []
    for value, spread in values:
        part = 2 * torch.rand(n_draws, generator=generator, dtype=torch.float64) - 1
        drawn.append(torch.cat([torch.tensor([value], dtype=torch.float64), value + spread * part]).clamp_min(1e-6))
    return sequence_signal(sequence, drawn[0], drawn[1], drawn[2])
