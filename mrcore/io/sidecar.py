"""JSON sidecars: what a file is, what made it and from what. Nothing in them depends on the clock or the machine."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mrcore.errors import BadInputError
from mrcore.io.atomic import atomic_write
from mrcore.io.file_content import IMAGE_SUFFIXES, refuse_unfetched
from mrcore.notes import Caution

logger = logging.getLogger(__name__)

_FOLDERS_UP = 6


def stem(path: Path) -> str:
    """Return the name of an image without its suffix: `sub-01_T1w` of `sub-01_T1w.nii.gz`."""
    for suffix in IMAGE_SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def sidecar_path(path: Path) -> Path:
    """Return the name of the JSON file that goes with an image."""
    return path.with_name(f"{stem(path)}.json")


def read_sidecar(path: Path) -> dict[str, object]:
    """Return the values of the sidecars of the image `path` as `sidecar_and_cautions` does; cautions are logged.

    Raises:
        BadInputError: a file is there and is not a JSON object.
    """
    values, cautions = sidecar_and_cautions(path)
    for caution in cautions:
        logger.warning("%s", caution)
    return values


def sidecar_and_cautions(path: Path) -> tuple[dict[str, object], tuple[Caution, ...]]:
    """Return what the sidecars of the image `path` say, empty when there is none, and what is wrong with them.

    Within a BIDS dataset (a folder above has `dataset_description.json`) values are inherited from files above, such as
    `T1w.json`, whose name ends as the image's does and has no entity that the image's lacks; the nearest file counts.

    Raises:
        BadInputError: a file is there and is not a JSON object.
    """
    values: dict[str, object] = {}
    cautions: tuple[Caution, ...] = ()
    for file in (*_inherited(path), sidecar_path(path)):
        if file.is_file() or file.is_symlink():
            found, more = json_and_cautions(file)
            values, cautions = values | found, cautions + more
    return values, cautions


def _inherited(path: Path) -> list[Path]:
    """Return the files of a BIDS dataset from which an image inherits, the most general first."""
    folders = list(path.absolute().parents)[:_FOLDERS_UP]
    roots = [n for n, folder in enumerate(folders) if (folder / "dataset_description.json").is_file()]
    if not roots:
        return []
    *entities, suffix = stem(path).split("_")
    found: list[Path] = []
    for folder in reversed(folders[: roots[0] + 1]):
        here = [file for file in folder.glob(f"*{suffix}.json") if file.name != sidecar_path(path).name]
        named = [(file.stem.split("_"), file) for file in here]
        fits = [(len(parts), file) for parts, file in named if parts[-1] == suffix and set(parts[:-1]) <= set(entities)]
        found += [file for _, file in sorted(fits)]
    return found


def read_json(path: Path) -> dict[str, object]:
    """Return the values of a JSON file as `json_and_cautions` does; cautions are logged.

    Raises:
        BadInputError: the file is missing or is not a JSON object.
    """
    values, cautions = json_and_cautions(path)
    for caution in cautions:
        logger.warning("%s", caution)
    return values


def json_and_cautions(path: Path) -> tuple[dict[str, object], tuple[Caution, ...]]:
    """Return the values of a JSON file, and what of it is not as JSON must be (RFC 8259).

    UTF-16 and UTF-32 are told by their bytes; what is not UTF-8 either is read as Latin-1, in which letters may come
    out wrong but numbers do not. NaN and infinity are no JSON: they become null, unknown.

    Raises:
        BadInputError: the file is missing, was not fetched or is not a JSON object.
    """
    refuse_unfetched(path)
    try:
        content = path.read_bytes()
        text, encoding = decoded(content)
        values = json.loads(text)
    except FileNotFoundError:
        raise BadInputError(f"{path}: no such file; expected a JSON file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInputError(f"{path} cannot be read as JSON ({error}); repair or remove it") from None
    if not isinstance(values, dict):
        raise BadInputError(f"{path} must hold a JSON object of keys and values; repair or remove it")
    cautions = []
    if encoding is not None:
        cautions.append(Caution(f"{path} is not UTF-8, as JSON must be: read as {encoding}; save it as UTF-8"))
    if lost := list(_not_finite(values)):
        cautions.append(Caution(f"{path} holds NaN or infinity, which are no JSON, for {', '.join(lost)}: not used"))
    return dict(values) if not lost else {str(key): finite(value) for key, value in values.items()}, tuple(cautions)


def decoded(content: bytes) -> tuple[str, str | None]:
    """Return the text of a JSON file or a table, and its encoding where that is not UTF-8 (with or without a mark)."""
    encoding = json.detect_encoding(content)
    if not encoding.startswith("utf-8"):
        return content.decode(encoding), encoding.upper()
    try:
        return content.decode("utf-8-sig"), None
    except UnicodeDecodeError:
        return content.decode("latin-1"), "Latin-1"


def _not_finite(value: object, name: str = "") -> Iterator[str]:
    """Yield where in JSON values NaN and infinity are, such as `Fit.Cost` or `EchoTime[1]`."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _not_finite(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _not_finite(item, f"{name}[{number}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield name


def write_sidecar(image_path: Path, values: Mapping[str, object], *, force: bool) -> None:
    """Write the sidecar of the image `image_path`: `values` and `GeneratedBy`, in a form that is always the same.

    Raises:
        BadInputError: the file exists and `force` is off; a value that JSON cannot hold (NaN and infinity among them).
    """
    content = {**values, "GeneratedBy": [{"Name": "mrkit", "Version": software_version()}]}
    try:
        text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise BadInputError(f"the sidecar of {image_path.name} holds a value that JSON cannot: {error}") from error
    with atomic_write(sidecar_path(image_path), force=force) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def finite(value: object) -> object:
    """Return JSON values with None for NaN and infinity, which JSON cannot hold: a score that does not exist."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def software_version() -> str:
    """Return the version of the installed mrkit."""
    try:
        return version("mrkit")
    except PackageNotFoundError:
        return "0+source"
