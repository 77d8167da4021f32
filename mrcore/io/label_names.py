"""What the codes of a label map mean, as files beside it state: the sidecar's `LabelMap`, or a BIDS `dseg.tsv`."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from mrcore.errors import BadInputError
from mrcore.io.label_codes import tissues_by_name
from mrcore.io.sidecar import decoded, read_sidecar, stem

logger = logging.getLogger(__name__)

_FOLDERS_UP = 4


def stated_meaning(path: Path) -> Mapping[int, str | None] | None:
    """Return the tissue of each code of the label map `path`, None where no file states it in names of tissues.

    The sidecar's `LabelMap` comes first (names to codes, or codes to names), then a table `dseg.tsv` (columns
    `index`, `name`, `abbreviation`) of the map's own name, in its folder or above it up to the root of the dataset.

    Raises:
        BadInputError: a sidecar or a table that cannot be read.
    """
    label_map = read_sidecar(path).get("LabelMap")
    if isinstance(label_map, Mapping) and (found := tissues_by_name(_codes_of(label_map))):
        return found
    for table in _tables(path):
        if found := _of_table(table):
            return found
    return None


def _codes_of(label_map: Mapping[object, object]) -> dict[int, str]:
    """Return names by code of a mapping in either direction; empty where it is neither."""
    if all(isinstance(code, int) for code in label_map.values()):
        return {int(str(code)): str(name) for name, code in label_map.items()}
    if all(str(code).isdigit() for code in label_map):
        return {int(str(code)): str(name) for code, name in label_map.items()}
    return {}


def _tables(path: Path) -> Iterator[Path]:
    """Yield the tables that may belong to the map, the nearest first (BIDS' inheritance)."""
    names = [f"{stem(path)}.tsv", "dseg.tsv"]
    folder = path.resolve().parent
    for _ in range(_FOLDERS_UP):
        yield from (folder / name for name in names if (folder / name).is_file())
        if (folder / "dataset_description.json").is_file() or folder.parent == folder:
            return
        folder = folder.parent


def _of_table(path: Path) -> Mapping[int, str | None] | None:
    try:
        text, encoding = decoded(path.read_bytes())
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"{path} cannot be read as a table ({error}); repair or remove it") from None
    if encoding is not None:
        logger.warning("%s is not UTF-8, as BIDS tables must be: read as %s", path, encoding)
    for column in ("name", "abbreviation"):
        named = {str(row.get("index", "")).strip(): str(row.get(column) or "") for row in rows}
        if all(index.isdigit() for index in named):
            found = tissues_by_name({int(index): name for index, name in named.items()})
            if found is not None:
                return found
    return None
