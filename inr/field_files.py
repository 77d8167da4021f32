"""Fitted fields as files: numbers in safetensors, settings as JSON in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor

from inr.fields.base import FieldDesign
from inr.fields.fourier import FourierMlp
from inr.fields.gabor_mlp import GaborMlp, TwoMapGaborMlp, Wire
from inr.fields.hashgrid import HashGrid
from inr.fields.multilevel import FieldSettings
from inr.fields.siren import Siren
from inr.hulfsynth import HulfSynthField
from inr.rendering import FittedField
from mrcore.data.grid import Grid
from mrcore.errors import BadInputError
from mrcore.io.tensors import read_tensors, save_tensors
from mrcore.random import seeded

FORMAT = "mrkit field 1"

DESIGNS: Mapping[str, type[FieldDesign]] = MappingProxyType(
    {
        design.__name__: design
        for design in (FieldSettings, GaborMlp, TwoMapGaborMlp, Wire, Siren, FourierMlp, HashGrid, HulfSynthField)
    }
)
"""Settings by the names that files use."""


def save_field(fitted: FittedField, path: str | Path, *, force: bool = False) -> None:
    """Write a fitted field to `path`.

    Raises:
        BadInputError: a design that `load_field` does not know, or a file that cannot be written or is there already
            (without `force`).
    """
    path = Path(path)
    design = fitted.design
    if DESIGNS.get(type(design).__name__) is not type(design) or not is_dataclass(design):
        raise BadInputError(f"fields of {type(design).__name__} cannot be saved; known are {', '.join(DESIGNS)}")
    grid = fitted.field.grid
    about = {
        "design": type(design).__name__,
        "settings": asdict(design),
        "n_outputs": fitted.field.n_outputs,
        "shape": list(grid.shape),
        "affine_mm": grid.affine.tolist(),
        "tissues": list(fitted.names),
        "intensity_scale": fitted.scale,
        "n_contrasts": fitted.n_contrasts,
    }
    tensors = {f"field.{key}": value for key, value in fitted.field.state_dict().items()}
    tensors |= {"first": fitted.first, "foreground": fitted.foreground, "brain": fitted.brain}
    save_tensors(tensors, path, {"format": FORMAT, "field": json.dumps(about)}, force=force)


def load_field(path: str | Path) -> FittedField:
    """Read what `save_field` wrote; every number is the same. Nothing of the file is executed.

    Raises:
        BadInputError: no such file, not a field, of another version, or incomplete.
    """
    path = Path(path)
    if not path.is_file() and not path.is_symlink():
        raise BadInputError(f"no file {path}")
    metadata, tensors = read_tensors(path, "it is made by `mrkit superresolve --save-field`")
    if metadata.get("format") != FORMAT:
        raise BadInputError(f"{path} is not a field of this version ('{FORMAT}'), but {metadata.get('format')!r}")
    try:
        return _read(json.loads(metadata["field"]), tensors)
    except (KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        raise BadInputError(f"the field in {path} is incomplete or of another version: {error}") from None


def _read(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> FittedField:
    settings = {key: tuple(v) if isinstance(v, list) else v for key, v in about["settings"].items()}
    design = DESIGNS[about["design"]](**settings)
    if isinstance(design, HashGrid):
        # What a GPU learned is read on any machine.
        design = replace(design, accelerated=False)
    grid = Grid(tuple(about["shape"]), np.array(about["affine_mm"]))
    field = design.build(grid, about["n_outputs"], seeded(0, "inr.store"))
    prefix = "field."
    field.load_state_dict({key[len(prefix) :]: v for key, v in tensors.items() if key.startswith(prefix)})
    names = tuple(about["tissues"])
    scale = float(about["intensity_scale"])
    masks = tensors["foreground"], tensors["brain"]
    return FittedField(field, design, tensors["first"], *masks, names, scale, int(about.get("n_contrasts", 1)))
