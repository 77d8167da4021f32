"""What a benchmark has finished, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.results import Row, versions

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Store:
    """Rows on disk in `folder`, each set under a key: its parameters and the `version` of code and packages.

    `fresh` ignores what is there, and replaces it.
    """

    folder: Path
    version: str
    fresh: bool = False

    def load(self, key: Mapping[str, object]) -> list[Row] | None:
        """Return the rows of `key`, or None where they are still to be made."""
        path = self._path(key)
        if self.fresh or not path.is_file():
            return None
        rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))["rows"]
        return rows

    def save(self, key: Mapping[str, object], rows: Sequence[Row]) -> None:
        """Keep the rows of `key`; a run that is killed meanwhile leaves no half file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(key)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        record = {"key": dict(key), "version": self.version, "rows": [dict(row) for row in rows]}
        temporary.write_text(json.dumps(record, indent=1, default=float), encoding="utf-8")
        temporary.replace(path)

    def _path(self, key: Mapping[str, object]) -> Path:
        text = json.dumps([self.version, dict(key)], sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.json"


def code_version(sources: Sequence[str], root: Path = ROOT) -> str:
    """Return a digest of Python `sources` (files, or folders with all they hold) and of the packages' versions.

    It stays the same over commits that do not touch what decides the figures.
    """
    digest = hashlib.sha256(json.dumps(versions(), sort_keys=True).encode())
    for source in sources:
        path = root / source
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(str(file.relative_to(root)).encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:20]
