"""What a notebook shows of a result: a few pictures and a table."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

_STYLE = "max-height: 260px; margin-right: 6px"


def notebook_html(title: str, facts: Mapping[str, str], pictures: Sequence[tuple[str, bytes]]) -> str:
    """Return HTML of a `title`, `facts` in a table, and `pictures` (name, PNG) side by side."""
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts.items())
    shown = "".join(
        f'<figure style="display: inline-block; margin: 0"><img style="{_STYLE}" alt="{escape(name)}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode("ascii")}"><figcaption>{escape(name)}</figcaption>'
        "</figure>"
        for name, png in pictures
    )
    return f"<div><strong>{escape(title)}</strong><table>{rows}</table>{shown}</div>"
