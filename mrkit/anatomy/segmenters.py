"""Tissue segmenters by the names of the command line, and the contrast that they need to know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor

from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.segmentation.backends import atropos_segmenter, dipy_segmenter, fast_segmenter
from mrcore.segmentation.tissues import (
    FLAIR_ORDER,
    T1W_ORDER,
    T2W_ORDER,
    HmrfSettings,
    Segmentation,
    Segmenter,
    segment,
)
from mrkit.anatomy.atlas import AtlasPrior, atlas_prior, atlas_segmenter

Order = tuple[str, str, str]

ORDERS: Mapping[str, Order] = MappingProxyType({"T1w": T1W_ORDER, "T2w": T2W_ORDER, "FLAIR": FLAIR_ORDER})
"""Tissues from dark to bright, by BIDS suffix."""


def own_segmenter(tissue_order: Order = T1W_ORDER) -> Segmenter:
    """Return mrkit's HMRF-EM for images in which tissues have this order from dark to bright."""
    settings = HmrfSettings(tissue_order=tissue_order)

    def run(volume: Volume, mask: Tensor) -> Segmentation:
        return segment(volume, mask, settings)

    return run


def template_segmenter(tissue_order: Order = T1W_ORDER) -> Segmenter:
    """Return mrkit's HMRF-EM that knows where the ICBM-152 template has its tissues.

    The template is laid over the first image that it is given, and serves all further ones of that person.
    """
    laid: list[AtlasPrior] = []

    def run(volume: Volume, mask: Tensor) -> Segmentation:
        if not laid:
            laid.append(atlas_prior(volume, mask))
        return atlas_segmenter(laid[0], HmrfSettings(tissue_order=tissue_order))(volume, mask)

    return run


BACKENDS: Mapping[str, Callable[[Order], Segmenter]] = MappingProxyType(
    {
        "mrkit": own_segmenter,
        "icbm": template_segmenter,
        "fast": fast_segmenter,
        "atropos": atropos_segmenter,
        "dipy": dipy_segmenter,
    }
)
"""What makes a segmenter, by name; those of other programs raise MissingExtraError where these are missing."""


def segmenter_named(name: str, weighting: str) -> Segmenter:
    """Return the segmenter of that name for images of that weighting (BIDS suffix).

    Raises:
        BadInputError: a name or weighting that is not known.
        MissingExtraError: the program is not installed.
    """
    if name not in BACKENDS:
        raise BadInputError(f"no segmenter '{name}'; there are {', '.join(BACKENDS)}")
    if weighting not in ORDERS:
        raise BadInputError(f"no tissue order for weighting '{weighting}'; there are {', '.join(ORDERS)}")
    return BACKENDS[name](ORDERS[weighting])
