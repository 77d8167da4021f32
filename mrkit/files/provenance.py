"""Where a result comes from, as sidecars and reports tell it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from mrcore.io.sidecar import file_sha256


def input_files(files: dict[str, Path]) -> tuple[InputFile, ...]:
    """Return the files that were read, as a report lists them."""
    return tuple(InputFile(path.name, file_sha256(path), role) for role, path in files.items())


@dataclass(frozen=True)
class Provenance:
    """Where a result comes from: files that were read by role, seed, parameters and remarks."""

    inputs: Mapping[str, Path]
    seed: int
    parameters: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def sidecar(self) -> dict[str, object]:
        """Return what every sidecar of the result says: names and SHA-256 of the inputs, not their folders."""
        hashes = {path.name: file_sha256(path) for path in self.inputs.values()}
        return {
            "Sources": list(hashes),
            "SourcesSHA256": hashes,
            "Seed": self.seed,
            "Parameters": dict(self.parameters),
            "Notes": list(self.notes),
        }


@dataclass(frozen=True)
class InputFile:
    """A file that was read, its SHA-256 (hex) and what it is for."""

    name: str
    sha256: str
    role: str = ""


@dataclass(frozen=True, eq=False)
class Record:
    """How a result came about, as its report tells it.

    Attributes:
        seed: of all randomness.
        segmenter: name of what made the tissue maps, with its version where it has one.
        seconds: run time; None leaves it out, so that a report can be the same twice.
        notes: warnings and remarks, shown before the pictures.
        inputs: files that were read.
        parameters: all settings.
        versions: of the programs that took part.
    """

    seed: int
    segmenter: str
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    inputs: tuple[InputFile, ...] = ()
    parameters: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def installed_versions() -> dict[str, str]:
    """Return the versions of Python, mrkit and the libraries that its numbers depend on."""
    found = {"python": platform.python_version()}
    for name in ("mrkit", "torch", "numpy", "scipy", "nibabel", "scikit-image"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found
