"""The TOML file of a training: what is trained on, what network, for how long."""

from __future__ import annotations

import glob
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from iqt.model.unet import UNetSettings
from mrcore.errors import BadInputError
from mrcore.training import TrainSettings
from ulfsim.cubes.cubes import NARROW, WIDE, CubeSettings

RANGES = {"narrow": NARROW, "wide": WIDE}


@dataclass(frozen=True)
class Group:
    """Files that are trained on alike: images of heads, or label maps; `weight` is the share of each file."""

    paths: tuple[Path, ...]
    weight: float = 1.0


@dataclass(frozen=True)
class TrainingConfig:
    """What a training file says; `read_config` reads it.

    Attributes:
        out: the .safetensors to write.
        images: groups of high-field images.
        labels: groups of label maps.
        held_out: names of files, without folder, that are kept for validation.
        network: sizes of the network.
        cubes: how pairs are drawn.
        training: steps, rate, seed and the like.
        licences: licence of each group of files, by the beginning of their names.
        n_test_cubes: cubes of each head that is held out, at each SNR, for validation.
    """

    out: Path
    images: tuple[Group, ...]
    labels: tuple[Group, ...]
    held_out: tuple[str, ...]
    network: UNetSettings
    cubes: CubeSettings
    training: TrainSettings
    licences: Mapping[str, str]
    n_test_cubes: int


def read_config(path: Path) -> TrainingConfig:
    """Read a training file; paths in it are relative to it, and may have wildcards.

    Raises:
        BadInputError: no such file, no TOML, unknown or missing keys, values out of range, patterns that match nothing.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInputError(f"{path}: no such file; expected a training file in TOML") from None
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path} cannot be read as TOML ({error})") from None
    known = {"out", "images", "labels", "held_out", "network", "cubes", "training", "licences", "n_test_cubes"}
    if unknown := sorted(set(values) - known):
        raise BadInputError(
            f"{path} has keys that are not known: {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    if "out" not in values or not ({"images", "labels"} & set(values)):
        raise BadInputError(f"{path} needs 'out', the .safetensors to write, and [[images]] or [[labels]]")
    cubes = dict(values.get("cubes", {}))
    names = cubes.pop("ranges", list(RANGES))
    if not set(names) <= set(RANGES):
        raise BadInputError(f"{path}: ranges are of {', '.join(RANGES)}, got {names}")
    return TrainingConfig(
        out=path.parent / values["out"],
        images=tuple(_group(path, group) for group in values.get("images", [])),
        labels=tuple(_group(path, group) for group in values.get("labels", [])),
        held_out=tuple(values.get("held_out", ())),
        network=_settings(path, UNetSettings, values.get("network", {})),
        cubes=_settings(path, CubeSettings, {**cubes, "ranges": tuple(RANGES[name] for name in names)}),
        training=_settings(path, TrainSettings, values.get("training", {})),
        licences=dict(values.get("licences", {})),
        n_test_cubes=int(values.get("n_test_cubes", 8)),
    )


Settings = TypeVar("Settings", UNetSettings, CubeSettings, TrainSettings)


def _settings(path: Path, kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    known = {f.name for f in fields(kind)}
    if unknown := sorted(set(values) - known):
        raise BadInputError(
            f"{path} has keys that are not known: {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    try:
        given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return kind(**given)
    except TypeError as error:
        raise BadInputError(f"{path}: {error}") from None


def _group(path: Path, values: Mapping[str, Any]) -> Group:
    if not set(values) <= {"paths", "weight"} or not values.get("paths"):
        raise BadInputError(f"{path}: a group of files has 'paths' and may have a 'weight', got {dict(values)}")
    found: list[Path] = []
    for pattern in values["paths"]:
        inside = sorted(glob.glob(str(path.parent / pattern)))  # noqa: PTH207  patterns may be absolute
        if not inside:
            raise BadInputError(f"{path}: no file matches '{pattern}' (relative to {path.parent})")
        found += map(Path, inside)
    return Group(tuple(found), float(values.get("weight", 1.0)))
