"""Plots of several series as inline SVG: lines over a common axis, and grouped bars with their spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from mrcore.errors import BadInputError
from mrkit.report.curves import round_levels

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 34, 46
_INSIDE_WIDTH, _INSIDE_HEIGHT = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM


@dataclass(frozen=True)
class Line:
    """A series of points; `colour` is CSS. A line without a name is not in the legend."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    colour: str
    dashed: bool = False

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or not all(map(math.isfinite, (*self.x, *self.y))):
            raise BadInputError(f"line '{self.name}' needs as many finite x as y values")


@dataclass(frozen=True)
class LinePlot:
    """Lines over one axis; the vertical axis begins at 0 unless a value is negative."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Bars:
    """A value per group, None where there is none, and its spread (standard deviation, 0 for none)."""

    name: str
    values: tuple[float | None, ...]
    spread: tuple[float, ...]
    colour: str


@dataclass(frozen=True)
class BarPlot:
    """Bars of several series side by side in each group; bars above `limit` are cut and marked."""

    title: str
    y_label: str
    groups: tuple[str, ...]
    bars: tuple[Bars, ...]
    limit: float = math.inf

    def __post_init__(self) -> None:
        for bars in self.bars:
            if not len(bars.values) == len(bars.spread) == len(self.groups):
                raise BadInputError(f"bars '{bars.name}' of '{self.title}' need one value and spread per group")


def line_svg(plot: LinePlot) -> Markup:
    """Return the plot as an SVG element; its text is escaped."""
    drawn = [line for line in plot.lines if line.x]
    xs = [x for line in drawn for x in line.x] or [0.0, 1.0]
    ys = [y for line in drawn for y in line.y] or [0.0, 1.0]
    left, right = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1
    axis = _Axis(min(0.0, *ys), max(ys))
    parts = axis.grid()
    for x in round_levels(left, right):
        if left - 1e-9 <= x <= right + 1e-9:
            at = _LEFT + _INSIDE_WIDTH * (x - left) / (right - left)
            parts.append(_text(at, _HEIGHT - _BOTTOM + 17, f"{x:.4g}", "middle", "tick"))
    for line in drawn:
        points = " L".join(
            f"{_LEFT + _INSIDE_WIDTH * (x - left) / (right - left):.1f},{axis.at(y):.1f}"
            for x, y in zip(line.x, line.y, strict=True)
        )
        dash = ' stroke-dasharray="6 4"' if line.dashed else ""
        parts.append(f'<path fill="none" stroke="{escape(line.colour)}" stroke-width="2.2"{dash} d="M{points}"/>')
    parts += _legend([(line.name, line.colour) for line in drawn if line.name])
    return _svg(plot.title, parts, plot.x_label, plot.y_label)


def bar_svg(plot: BarPlot) -> Markup:
    """Return the plot as an SVG element; its text is escaped."""
    shown = [
        min(max(value, -plot.limit), plot.limit)
        for bars in plot.bars
        for value in bars.values
        if value is not None and not math.isnan(value)
    ]
    axis = _Axis(min(0.0, *shown, 0.0), max(0.0, *shown, 0.0) or 1.0)
    parts = axis.grid()
    group_width = _INSIDE_WIDTH / max(1, len(plot.groups))
    width = 0.82 * group_width / max(1, len(plot.bars))
    for g, group in enumerate(plot.groups):
        start = _LEFT + group_width * (g + 0.09)
        parts.append(_text(start + 0.41 * group_width, _HEIGHT - _BOTTOM + 17, group, "middle", "label"))
        for b, bars in enumerate(plot.bars):
            value = bars.values[g]
            if value is not None and not math.isnan(value):
                parts += _bar(axis, start + b * width, width, value, bars.spread[g], bars.colour, plot.limit)
    parts += _legend([(bars.name, bars.colour) for bars in plot.bars])
    return _svg(plot.title, parts, "", plot.y_label)


def _bar(axis: _Axis, x: float, width: float, value: float, spread: float, colour: str, limit: float) -> list[str]:
    cut = min(max(value, -limit), limit)
    top, bottom = sorted((axis.at(cut), axis.at(0)))
    middle = x + width / 2
    parts = [
        f'<rect x="{x + 1:.1f}" y="{top:.1f}" width="{max(1, width - 2):.1f}" height="{max(0.5, bottom - top):.1f}" '
        f'fill="{escape(colour)}"/>'
    ]
    if spread > 0 and cut == value:
        low, high = axis.ends
        ends = axis.at(max(value - spread, low)), axis.at(min(value + spread, high))
        parts.append(
            f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="{ends[0]:.1f}" y2="{ends[1]:.1f}" stroke="#5b636e" '
            'stroke-width="1.4"/>'
        )
    label = f"{value:.3g}" if math.isfinite(value) else "\N{INFINITY}"
    label = label.replace("-", "\N{MINUS SIGN}") + ("\N{NO-BREAK SPACE}\N{UPWARDS ARROW}" if cut != value else "")
    at = top - 4 if cut >= 0 else bottom + 12
    parts.append(_text(middle, at, label, "middle", "tick"))
    return parts


@dataclass(frozen=True)
class _Axis:
    """The vertical axis: values from `low` to `high`, with a little room."""

    low: float
    high: float

    @property
    def ends(self) -> tuple[float, float]:
        span = (self.high - self.low) or 1.0
        return (self.low - 0.08 * span if self.low < 0 else self.low), self.high + 0.08 * span

    def at(self, value: float) -> float:
        bottom, top = self.ends
        return _TOP + _INSIDE_HEIGHT * (top - value) / (top - bottom)

    def grid(self) -> list[str]:
        bottom, top = self.ends
        parts = []
        for level in round_levels(self.low, self.high):
            if bottom <= level <= top:
                y = self.at(level)
                parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
                parts.append(_text(_LEFT - 8, y + 4, f"{level:.4g}", "end", "tick"))
        return parts


def _legend(entries: Sequence[tuple[str, str]]) -> list[str]:
    parts, x = [], float(_LEFT)
    for name, colour in entries:
        parts.append(f'<rect x="{x:.0f}" y="8" width="12" height="12" rx="2" fill="{escape(colour)}"/>')
        parts.append(_text(x + 17, 18, name, "start", "label"))
        x += 34 + 7 * len(name)
    return parts


def _svg(title: str, parts: Sequence[str], x_label: str, y_label: str) -> Markup:
    labels = [
        _text(_LEFT + _INSIDE_WIDTH / 2, _HEIGHT - 8, x_label, "middle", "label"),
        f'<g transform="translate(14 {_TOP + _INSIDE_HEIGHT / 2:.0f}) rotate(-90)">'
        + _text(0, 0, y_label, "middle", "label")
        + "</g>",
    ]
    # Every text in it went through escape().
    return Markup(
        f'<svg class="curve" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join([*parts, *labels])}</svg>"
    )


def _text(x: float, y: float, text: str, anchor: str, name: str) -> str:
    return f'<text class="{name}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
