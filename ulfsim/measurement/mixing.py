"""What it does to tissue means that tissues were found in the very scan that is measured.

A segmentation by intensity has no tissue maps but its own classes: where slices are thicker than the cortex nearly
every voxel of grey matter holds something else too, and the mean of the class is that of the mixture. Least squares on
the class maps only gives the class means back (with true maps, through the point spread, it finds the true signals),
and so does simulating the scan anew from them. What remains is to say how far a mixture may lie from its tissue.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from mrcore.data.volume import TissueMap
from ulfsim.measurement.contrast import ContrastStats
from ulfsim.measurement.noise import eroded

OWN_SHARE, OWN_SHARE_IN_CORES = 0.7, 0.9
"""Least share of their own tissue that voxels are taken to hold: in general, and where a tissue has an inner core.

Assumed; with them 95 % intervals of SNR and CNR hold the truth in at least 90 % of simulated 1.6 x 1.6 x 5 mm scans of
five brains at WM SNR 51 and 20 (a slow test).
"""

_THRESHOLD, _ENOUGH = 0.9, 200


def with_mixing(stats: ContrastStats, tissues: TissueMap) -> ContrastStats:
    """Return `stats`, measured in `tissues` that were found in the same scan, with intervals that answer for mixtures.

    A voxel that holds the share f of its tissue and 1 - f of the next darker one (of air, for the darkest) is too dark
    by (1 - f) / f of what it shows more than that one; of the next brighter one, too bright alike. The brightest may
    have been chosen for its noise, by as much as it may be too dark. Means stay; the ends of their intervals move.
    """
    shares = [_own_share(name, tissues) for name in stats.names]
    shifts = _shifts(stats.mean, shares)
    mixtures = [
        replace(each, mean=tuple(max(m + s, 0.0) for m, s in zip(each.mean, chosen, strict=True)), ends=())
        for each in (stats, *stats.ends)
        for chosen in itertools.product(*shifts)
    ]
    note = (
        "the tissues were found in this very scan: intervals answer for voxels that hold as little as "
        f"{min(shares):.0%} of their own tissue"
    )
    return replace(stats, mixtures=tuple(mixtures), notes=(*stats.notes, note))


def _own_share(name: str, tissues: TissueMap) -> float:
    # CSF lies in sulci and at the border of the brain, where its core mixes with air or skull.
    if name == "CSF":
        return OWN_SHARE
    inner = eroded(tissues.of(name) > _THRESHOLD)
    return OWN_SHARE_IN_CORES if int(inner.count_nonzero()) >= _ENOUGH else OWN_SHARE


def _shifts(means: Sequence[float], shares: Sequence[float]) -> list[tuple[float, float]]:
    """Return for each tissue how far its true mean may lie below and above the measured one."""
    out = []
    for mean, share in zip(means, shares, strict=True):
        factor = (1 - share) / share
        darker = max((m for m in means if m < mean), default=0.0)
        brighter = min((m for m in means if m > mean), default=2 * mean - darker)
        out.append((-factor * (brighter - mean), factor * (mean - darker)))
    return out
