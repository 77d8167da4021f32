"""Finished members of an ensemble, kept beside the results until all are done: what was fitted is not lost."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mrcore.atomic import atomic_write


@dataclass(frozen=True)
class Members:
    """Images by name in `folder`, of one `purpose`: everything that changes a fit. Others' files are never used."""

    folder: Path
    purpose: str

    def kept(self, name: str, fit: Callable[[], Tensor]) -> Tensor:
        """Return the image `name`, fitting and writing it if it is not there or is damaged."""
        path = self.folder / f"{self._digest}_{name}.safetensors"
        if path.is_file():
            try:
                return load_file(path)["image"]
            except (SafetensorError, KeyError):
                path.unlink()
        image = fit()
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, force=True) as temporary:
            save_file({"image": image.contiguous()}, temporary)
        return image

    def remove(self) -> None:
        """Remove the folder; the results are written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _digest(self) -> str:
        return hashlib.sha256(self.purpose.encode()).hexdigest()[:16]
