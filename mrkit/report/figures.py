"""Figures of reports: rows of grey images, of tissues and of signed maps in the same planes."""

from __future__ import annotations

from mrcore.data.volume import TissueMap, Volume
from mrkit.report.pictures import (
    DIVERGING,
    Sections,
    Window,
    css_colour,
    intensity_picture,
    signed_picture,
    tissue_colour,
    tissue_picture,
)
from mrkit.report.report import Figure, Legend


def grey_figure(
    title: str, text: str, volume: Volume, planes: Sections, window: Window, *, focus: bool = False
) -> Figure:
    """Return a grey image in the window that all images of a page share."""
    pictures = tuple(intensity_picture(volume, plane, window) for plane in planes)
    return Figure(title, text, pictures, tuple(plane.caption for plane in planes), compared=True, focus=focus)


def tissue_figure(
    title: str, text: str, tissues: TissueMap, planes: Sections, underlay: Volume, window: Window
) -> Figure:
    """Return tissues in their colours over a grey image."""
    pictures = tuple(tissue_picture(tissues, plane, underlay, window) for plane in planes)
    colours = tuple(css_colour(tissue_colour(i)) for i in range(len(tissues.names)))
    return Figure(
        title, text, pictures, tuple(plane.caption for plane in planes), Legend(colours, tissues.names), compared=True
    )


def signed_figure(title: str, text: str, volume: Volume, planes: Sections, limit: float, unit: str) -> Figure:
    """Return a signed map, blue below and red above 0, from -limit to limit."""
    pictures = tuple(signed_picture(volume, plane, limit) for plane in planes)
    labels = (f"\N{MINUS SIGN}{limit:.2g}{unit}", "0", f"+{limit:.2g}{unit}")
    legend = Legend(tuple(css_colour(c) for c in DIVERGING), labels, continuous=True)
    return Figure(title, text, pictures, tuple(plane.caption for plane in planes), legend)
