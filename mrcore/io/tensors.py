"""Tensors as safetensors files, the same bytes in every process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from mrcore.io.atomic import atomic_write


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str], *, force: bool = False
) -> None:
    """Write tensors by name, with `metadata` as text by key, whole or not at all.

    Raises:
        BadInputError: the file exists and `force` is off, or it cannot be written.
    """
    content = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata=dict(metadata))
    with atomic_write(path, force=force) as temporary:
        temporary.write_bytes(_in_order(content))


def _in_order(content: bytes) -> bytes:
    """Return a safetensors file with its metadata in the order of their keys: its library leaves it to chance."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    # Tensors begin at a multiple of 8 bytes, as in the original.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + size :]
