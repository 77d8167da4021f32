"""Label codes of other programs, as CSF, GM, WM or none of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from mrcore.errors import BadInputError

FAST_CODES: Mapping[int, str | None] = MappingProxyType({0: None, 1: "CSF", 2: "GM", 3: "WM"})
"""FSL FAST on a T1w image, and mrkit's own label maps."""


_NAMES: Mapping[str, str | None] = MappingProxyType(
    {
        **dict.fromkeys(("csf", "cerebrospinal fluid"), "CSF"),
        **dict.fromkeys(("gm", "cgm", "sgm", "grey matter", "gray matter"), "GM"),
        **dict.fromkeys(("cortical grey matter", "cortical gray matter"), "GM"),
        **dict.fromkeys(("subcortical grey matter", "subcortical gray matter"), "GM"),
        **dict.fromkeys(("wm", "white matter", "lesion", "l"), "WM"),
        **dict.fromkeys(("bg", "background", "bone", "b", "st", "soft tissue", "nonb", "non brain"), None),
    }
)
"""Tissues by the names and abbreviations of BIDS (standard segmentation labels): small letters, words by spaces."""


def tissues_by_name(names: Mapping[int, str]) -> Mapping[int, str | None] | None:
    """Return the tissue of each code from its stated name; None where a name is not one of a tissue."""
    known = {code: name.strip().casefold().replace("_", " ").replace("-", " ") for code, name in names.items()}
    if not known or not set(known.values()) <= set(_NAMES):
        return None
    return {0: None, **{code: _NAMES[name] for code, name in known.items()}}


def _freesurfer() -> dict[int, str | None]:
    """Return FreeSurfer's colour table (FreeSurferColorLUT) by tissue; structures, then cortex by range."""
    # Cerebral and cerebellar white matter, brain stem, ventral diencephalon, hypointensities, chiasm, corpus callosum.
    white = (2, 7, 16, 28, 41, 46, 60, 77, 78, 79, 85, 192, *range(250, 256), 5001, 5002)
    # Cortex, cerebellar cortex, thalamus, basal ganglia, hippocampus, amygdala, insula, accumbens, substantia nigra.
    grey_left = (3, 8, 9, 10, 11, 12, 13, 17, 18, 19, 20, 26, 27)
    grey_right = (42, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 58, 59)
    # Ventricles, CSF, choroid plexus; vessels are fluid-filled spaces in FreeSurfer's use. SynthSeg's label maps
    # have the inside of the lateral ventricles in parts: 136, 137 left and 163, 164 right.
    fluid = (4, 5, 14, 15, 24, 30, 31, 43, 44, 62, 63, 72, 136, 137, 163, 164, 257)
    # Lesions lie in white matter; exteriors, undetermined, skull and SynthSeg's extra-cerebral classes are no tissue.
    lesion = (25, 57, 99)
    outside = (0, 1, 6, 21, 22, 23, 29, 32, 40, 45, 61, 165, 258, 259, *range(500, 531))
    table: dict[int, str | None] = dict.fromkeys(outside)
    table |= dict.fromkeys((*white, *lesion, *range(3000, 3036), *range(4000, 4036)), "WM")
    table |= dict.fromkeys((*range(13100, 13176), *range(14100, 14176)), "WM")
    table |= dict.fromkeys((*grey_left, *grey_right, 80, 81, 82), "GM")
    table |= dict.fromkeys((*range(1000, 1036), *range(2000, 2036)), "GM")
    table |= dict.fromkeys((*range(11100, 11176), *range(12100, 12176)), "GM")
    return table | dict.fromkeys(fluid, "CSF")


FREESURFER_CODES: Mapping[int, str | None] = MappingProxyType(_freesurfer())
"""FreeSurfer aseg, aparc+aseg, a2009s, wmparc, and SynthSeg."""


def tissue_of_codes(
    codes: Iterable[int], what: str, stated: Mapping[int, str | None] | None = None
) -> Mapping[int, str | None]:
    """Return the table that gives each of the label `codes` in a map its tissue, None outside the brain.

    Codes that are `stated` mean what is stated there. Without that, codes 0 to 3 alone are those of FAST, others must
    all be FreeSurfer's.

    Raises:
        BadInputError: codes that are in no table; `what` names the map.
    """
    present = set(codes)
    if stated is not None:
        if lacking := sorted(present - set(stated)):
            known = ", ".join(f"{code} {tissue or 'background'}" for code, tissue in sorted(stated.items()))
            raise BadInputError(
                f"{what} holds label codes whose meaning was not stated: {_shown(lacking)}; stated are {known}"
            )
        return stated
    for table in (FAST_CODES, FREESURFER_CODES):
        if present <= set(table):
            return table
    unknown = sorted(present - set(FREESURFER_CODES))
    raise BadInputError(
        f"{what} holds label codes that are not known: {_shown(unknown)}; use FAST's (1 CSF, 2 GM, 3 WM), "
        "FreeSurfer's, or three probability maps in the order CSF GM WM"
    )


def _shown(codes: list[int]) -> str:
    return ", ".join(map(str, codes[:6])) + (", ..." if len(codes) > 6 else "")
