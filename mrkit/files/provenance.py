"""Where a result comes from, as its sidecars and its page tell it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from mrcore.io.sidecar import file_sha256


class Source(NamedTuple):
    """A file that was read: what it is for, its name without its folder, and its SHA-256 (hex)."""

    role: str
    name: str
    sha256: str


def installed_versions() -> dict[str, str]:
    """Return the versions of Python, mrkit and the libraries that its numbers depend on."""
    found = {"python": platform.python_version()}
    for name in ("mrkit", "torch", "numpy", "scipy", "nibabel", "scikit-image"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


@dataclass(frozen=True, eq=False)
class Record:
    """How a result came about.

    Attributes:
        inputs: files that were read, by role.
        seed: of all randomness; None where nothing is random.
        parameters: all settings.
        notes: warnings and remarks, which a page shows before its pictures.
        segmenter: what made the tissue maps; empty where there are none.
        versions: of the programs that took part.
    """

    inputs: Mapping[str, Path] = field(default_factory=dict)
    seed: int | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    segmenter: str = ""
    versions: Mapping[str, str] = field(default_factory=installed_versions)

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """The files that were read."""
        return tuple(Source(role, path.name, file_sha256(path)) for role, path in self.inputs.items())

    @property
    def settings(self) -> dict[str, object]:
        """Seed and parameters."""
        return {**({} if self.seed is None else {"seed": self.seed}), **self.parameters}

    def sidecar(self) -> dict[str, object]:
        """Return what every sidecar of the result says: names and SHA-256 of the inputs, not their folders."""
        hashes = {source.name: source.sha256 for source in self.sources}
        seed = {} if self.seed is None else {"Seed": self.seed}
        return {
            "Sources": list(hashes),
            "SourcesSHA256": hashes,
            **seed,
            "Parameters": dict(self.parameters),
            "Notes": list(self.notes),
        }
