"""Tensors and networks as safetensors files, the same bytes in every process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mrcore.errors import BadInputError
from mrcore.io.atomic import atomic_write, refuse_existing
from mrcore.io.file_content import refuse_unfetched
from mrcore.io.sidecar import finite


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


def read_tensors(path: Path, advice: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return metadata and tensors of a safetensors file; nothing of it is executed.

    Raises:
        BadInputError: no such file, for which `advice` says what to do, one that was not fetched, or no safetensors.
    """
    refuse_unfetched(path)
    if not path.is_file():
        raise BadInputError(f"{path}: no such file; {advice}")
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise BadInputError(f"{path} is not a safetensors file, or is damaged ({error})") from error


def save_network(
    weights: Mapping[str, Tensor],
    path: Path,
    identity: tuple[str, str],
    settings: Mapping[str, object],
    card: Mapping[str, object],
    *,
    dtype: torch.dtype,
    force: bool,
) -> None:
    """Write weights, in `dtype`, with settings and card as .safetensors, and settings and card as .json beside it.

    `identity` is the format of the file and its version.

    Raises:
        BadInputError: a name that does not end in .safetensors, or files that exist while `force` is off.
    """
    kind, version = identity
    if path.suffix != ".safetensors":
        raise BadInputError(f"a network is saved as .safetensors, got '{path.name}'")
    card_path = path.with_suffix(".json")
    refuse_existing([path, card_path], force=force)
    header = {"format": kind, "version": version, "settings": json.dumps(settings), "card": json.dumps(card)}
    save_tensors({name: value.to(dtype) for name, value in weights.items()}, path, header, force=force)
    with atomic_write(card_path, force=force) as temporary:
        content = {"Format": kind, "Version": version, "Settings": settings, "Card": card}
        temporary.write_text(json.dumps(finite(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_network(path: Path, identity: tuple[str, str], made_by: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the header of a network file (JSON in `settings` and `card`) and its weights in float32.

    `made_by` is the command that makes such files, for messages.

    Raises:
        BadInputError: as `read_tensors`, or a file of another format or version.
    """
    kind, version = identity
    header, weights = read_tensors(path, f"it is made by `{made_by}`")
    if header.get("format") != kind:
        raise BadInputError(f"{path} holds no {kind}; make one with `{made_by}`")
    if header.get("version") != version:
        found = header.get("version")
        raise BadInputError(f"{path} is a {kind} of version {found}; this mrkit reads version {version}")
    return header, {name: value.float() for name, value in weights.items()}


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
