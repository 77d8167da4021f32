"""Line plots as inline SVG, for the history of a fit."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup, escape

from mrcore.errors import BadInputError

_WIDTH, _HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 14, 44


@dataclass(frozen=True)
class Curve:
    """Values of equal steps, drawn from left to right; `target` is a level to be reached, drawn as a dashed line.

    The vertical axis is logarithmic where all values are positive and span more than a factor of 20.
    """

    title: str
    x_label: str
    y_label: str
    values: tuple[float, ...]
    target: float | None = None
    target_label: str = ""

    def __post_init__(self) -> None:
        if not self.values or not all(math.isfinite(v) for v in self.values):
            raise BadInputError(f"curve '{self.title}' needs finite values, at least one")


def curve_svg(curve: Curve) -> Markup:
    """Return the curve as an SVG element; its text is escaped."""
    levels = [*curve.values, *([] if curve.target is None else [curve.target])]
    low, high = min(levels), max(levels)
    logarithmic = low > 0 and high / low > 20
    scale = math.log10 if logarithmic else float
    bottom, top = scale(low), scale(high)
    if top == bottom:
        bottom, top = bottom - 0.5, top + 0.5
    pad = 0.05 * (top - bottom)
    bottom, top = bottom - pad, top + pad
    n_steps = max(1, len(curve.values) - 1)

    def x_at(step: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * step / n_steps

    def y_at(value: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (top - scale(value)) / (top - bottom)

    ticks = _decades(low, high) if logarithmic else round_levels(low, high)
    rows = [_grid_line(y_at(t), _tick(t)) for t in ticks if bottom <= scale(t) <= top]
    steps = [s for s in round_levels(0, n_steps) if s == int(s) and 0 <= s <= n_steps]
    columns = [_text(x_at(s), _HEIGHT - _BOTTOM + 17, _tick(s), "middle", "tick") for s in steps]
    path = "M" + " L".join(f"{x_at(i):.1f},{y_at(v):.1f}" for i, v in enumerate(curve.values))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts = [
        *rows,
        *columns,
        _target(curve, y_at(curve.target)) if curve.target is not None else "",
        f'<path class="line" d="{path}"/>',
        f'<circle class="end" cx="{x_at(len(curve.values) - 1):.1f}" cy="{y_at(curve.values[-1]):.1f}" r="3.5"/>',
        _text(middle, _HEIGHT - 6, curve.x_label, "middle", "label"),
        f'<g transform="translate(14 {(_TOP + _HEIGHT - _BOTTOM) / 2:.0f}) rotate(-90)">'
        + _text(0, 0, curve.y_label, "middle", "label")
        + "</g>",
    ]
    name = escape(f"{curve.title}: from {curve.values[0]:.4g} to {curve.values[-1]:.4g} in {n_steps} steps")
    # Every text in it went through escape().
    return Markup(
        f'<svg class="curve" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}">{"".join(parts)}</svg>'
    )


def _grid_line(y: float, label: str) -> str:
    return f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>' + _text(
        _LEFT - 8, y + 4, label, "end", "tick"
    )


def _target(curve: Curve, y: float) -> str:
    line = f'<line class="target" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line + _text(_WIDTH - _RIGHT - 4, y - 6, curve.target_label, "end", "label")


def _text(x: float, y: float, text: str, anchor: str, name: str) -> str:
    return f'<text class="{name}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _decades(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    # Few decades need marks between them.
    within = (1.0,) if last - first > 3 else (1.0, 2.0, 5.0)
    return [m * 10.0**e for e in range(first, last + 1) for m in within]


def round_levels(low: float, high: float, n_wanted: int = 5) -> list[float]:
    """Return about `n_wanted` round numbers, equally spaced, that cover `low` to `high`."""
    span = (high - low) or 1.0
    raw = span / n_wanted
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1.0, 2.0, 5.0, 10.0) if m * unit >= raw * 0.999)
    return [i * step for i in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _tick(value: float) -> str:
    return f"{value:.4g}"
