"""Finished parts of a long command, kept beside its results until all are written: a run that is killed loses none."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from mrcore.io.tensors import save_tensors


@dataclass(frozen=True, eq=False)
class KeptPart:
    """What is kept of a part: `tensors` by name, and `facts` as text."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Kept:
    """Parts by name in `folder`, of one `purpose`: everything that changes them. Others' files are never used."""

    folder: Path
    purpose: str

    def part(self, name: str, compute: Callable[[], KeptPart]) -> KeptPart:
        """Return the part `name`, computing and writing it if it is not there or is damaged."""
        path = self.folder / f"{hashlib.sha256(self.purpose.encode()).hexdigest()[:16]}_{name}.safetensors"
        if path.is_file():
            try:
                return _read(path)
            except SafetensorError:
                path.unlink()
        made = compute()
        self.folder.mkdir(parents=True, exist_ok=True)
        save_tensors(made.tensors, path, made.facts, force=True)
        return made

    def image(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """Return the image `name`, as `part` does."""
        return self.part(name, lambda: KeptPart({"image": compute()})).tensors["image"]

    def remove(self) -> None:
        """Remove the folder; the results are written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _read(path: Path) -> KeptPart:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
        return KeptPart(tensors, file.metadata() or {})
