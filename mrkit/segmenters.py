"""Tissue segmenters by the names of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mrcore.errors import BadInputError
from mrcore.segment import Segmenter
from mrcore.segment_backends import atropos_segmenter, dipy_segmenter, fast_segmenter

BACKENDS: Mapping[str, Segmenter] = MappingProxyType(
    {"fast": fast_segmenter, "atropos": atropos_segmenter, "dipy": dipy_segmenter}
)
"""Segmenters of other programs; each raises MissingExtraError where its program is not installed."""


def segmenter_named(name: str) -> Segmenter | None:
    """Return the backend of that name; None is mrkit's own, the default of the API."""
    if name == "mrkit":
        return None
    if name not in BACKENDS:
        raise BadInputError(f"no segmenter '{name}'; there are mrkit, {', '.join(BACKENDS)}")
    return BACKENDS[name]
