"""Where a result comes from, as its sidecars and its page tell it."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from mrcore.io.sidecar import file_sha256, stem


class Source(NamedTuple):
    """A file that was read: what it is for, its name as `distinct_names` has it, and its SHA-256 (hex)."""

    role: str
    name: str
    sha256: str


def distinct_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Return the name of each file, with as many of its folders as tell it from others of that name.

    Names alone do not tell `sub-01/T1w.nii.gz` from `sub-02/T1w.nii.gz`; whole paths would tell of the machine.
    """
    given = tuple(paths)
    parts = {path: path.absolute().parts for path in given}
    names = {}
    for path in given:
        others = {own for own in parts.values() if own != parts[path]}
        n = 1
        while any(own[-n:] == parts[path][-n:] for own in others):
            n += 1
        names[path] = "/".join(parts[path][-n:])
    return names


def distinct_stems(paths: Iterable[Path]) -> dict[Path, str]:
    """Return what the results of each image are named by: its name, after those of its folders where two are equal.

    Two images of one folder that differ by their suffix alone keep one stem.
    """
    stems = {path: path.absolute().with_name(stem(path)) for path in paths}
    names = distinct_names(dict.fromkeys(stems.values()))
    return {path: names[bare].replace("/", "_") for path, bare in stems.items()}


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
        names = distinct_names(self.inputs.values())
        return tuple(Source(role, names[path], file_sha256(path)) for role, path in self.inputs.items())

    @property
    def settings(self) -> dict[str, object]:
        """Seed and parameters."""
        return {**({} if self.seed is None else {"seed": self.seed}), **self.parameters}

    def sidecar(self) -> dict[str, object]:
        """Return what every sidecar of the result says: names and SHA-256 of the inputs, not where they lie."""
        hashes = {source.name: source.sha256 for source in self.sources}
        seed = {} if self.seed is None else {"Seed": self.seed}
        return {
            "Sources": list(hashes),
            "SourcesSHA256": hashes,
            **seed,
            "Parameters": dict(self.parameters),
            "Notes": list(self.notes),
        }
