"""Maps of finished methods, kept beside the results until these are written: a run that is killed loses none."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mrcore.atomic import atomic_write
from mrcore.grid import Grid
from mrcore.volume import Volume
from mrkit.quantification import Quantified

_MAPS = ("t1_s", "t2_s", "b1", "t1_sd_s", "t2_sd_s", "pd_sd", "residual")
_FACTS = ("converged", "n_iter", "history", "history_of", "message", "notes")


@dataclass(frozen=True)
class KeptMaps:
    """Results by name in `folder`, of one `purpose`: everything that changes them. Others' files are never used."""

    folder: Path
    purpose: str

    def kept(self, name: str, grid: Grid, compute: Callable[[], Quantified]) -> Quantified:
        """Return the result `name` on its grid, computing and writing it if it is not there or is damaged."""
        digest = hashlib.sha256(f"{self.purpose} {name}".encode()).hexdigest()[:16]
        path = self.folder / f"{digest}.safetensors"
        if path.is_file():
            try:
                return _read(path, grid)
            except (SafetensorError, KeyError, ValueError):
                path.unlink()
        result = compute()
        with atomic_write(path, force=True) as temporary:
            save_file(_tensors(result), temporary, {name: json.dumps(getattr(result, name)) for name in _FACTS})
        return result

    def remove(self) -> None:
        """Remove the folder; the results are written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _tensors(result: Quantified) -> dict[str, Tensor]:
    volumes: dict[str, Volume | None] = {name: getattr(result, name) for name in _MAPS}
    maps = {name: volume.data.contiguous() for name, volume in volumes.items() if volume is not None}
    return maps | {"pd": torch.view_as_real(result.pd.data).contiguous(), "mask": result.mask.contiguous()}


def _read(path: Path, grid: Grid) -> Quantified:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
        said = file.metadata()
    facts = {name: json.loads(said[name]) for name in _FACTS}
    return Quantified(
        t1_s=Volume(tensors["t1_s"], grid),
        t2_s=Volume(tensors["t2_s"], grid),
        pd=Volume(torch.view_as_complex(tensors["pd"]), grid),
        b1=Volume(tensors["b1"], grid) if "b1" in tensors else None,
        t1_sd_s=Volume(tensors["t1_sd_s"], grid),
        t2_sd_s=Volume(tensors["t2_sd_s"], grid),
        pd_sd=Volume(tensors["pd_sd"], grid),
        residual=Volume(tensors["residual"], grid),
        mask=tensors["mask"],
        converged=facts["converged"],
        n_iter=facts["n_iter"],
        history=tuple(facts["history"]),
        history_of=facts["history_of"],
        message=facts["message"],
        notes=tuple(facts["notes"]),
    )
