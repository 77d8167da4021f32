"""A line on a record of arrays: shapes in the place of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import numpy as np
from torch import Tensor

_MOST = 4


class Brief:
    """Base of dataclasses (with `repr=False`) that hold arrays: their `repr` is one line with shapes, not numbers."""

    def __repr__(self) -> str:
        shown = [f"{f.name}={_brief(getattr(self, f.name))}" for f in fields(self) if f.repr]  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(shown)})"


def _brief(value: object) -> str:
    if isinstance(value, Tensor | np.ndarray):
        if value.ndim == 0:
            return f"{value.item():.4g}"
        return f"{str(value.dtype).removeprefix('torch.')} {' x '.join(map(str, value.shape))}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_brief, value))})" if len(value) <= _MOST else f"<{len(value)}>"
    if isinstance(value, Mapping):
        inner = ", ".join(f"{key}: {_brief(each)}" for key, each in value.items())
        return f"{{{inner}}}" if len(value) <= _MOST else f"<{len(value)}>"
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else f"{value[:57]}...")
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    return repr(value)
