"""Maps of finished methods as records that are kept."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch

from mrcore.data.grid import Grid
from mrcore.data.volume import Volume
from mrcore.notes import Caution
from mrkit.files.kept import Kept, KeptPart
from mrkit.quantification.quantify import Quantified

_MAPS = ("t1_s", "t2_s", "b1", "t1_sd_s", "t2_sd_s", "pd_sd", "residual")
_FACTS = ("converged", "n_iter", "history", "history_of", "message", "notes")


def kept_maps(kept: Kept, name: str, grid: Grid, compute: Callable[[], Quantified]) -> Quantified:
    """Return the result of the method `name` on its grid, from what is kept or computed."""
    return _quantified(kept.part(name, lambda: _part(compute())), grid)


def _part(result: Quantified) -> KeptPart:
    volumes: dict[str, Volume | None] = {name: getattr(result, name) for name in _MAPS}
    maps = {name: volume.data for name, volume in volumes.items() if volume is not None}
    tensors = maps | {"pd": torch.view_as_real(result.pd.data), "mask": result.mask}
    # A note is kept with the rank that makes it a caution, which text alone does not have.
    notes = [(note, note.rank if isinstance(note, Caution) else None) for note in result.notes]
    facts = {name: json.dumps(getattr(result, name)) for name in _FACTS}
    return KeptPart(tensors, facts | {"notes": json.dumps(notes)})


def _quantified(part: KeptPart, grid: Grid) -> Quantified:
    tensors = part.tensors
    facts = {name: json.loads(part.facts[name]) for name in _FACTS}
    return Quantified(
        t1_s=Volume(tensors["t1_s"], grid),
        t2_s=Volume(tensors["t2_s"], grid),
        pd=Volume(torch.view_as_complex(tensors["pd"].contiguous()), grid),
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
        notes=tuple(_note(*each) for each in facts["notes"]),
    )


def _note(text: str, rank: int | None) -> str:
    return text if rank is None else Caution(text, rank)
