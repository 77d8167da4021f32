"""Writing files: whole or not at all, and never over something that is there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mrcore.errors import BadInputError


def refuse_existing(paths: Iterable[Path], *, force: bool) -> None:
    """Check before any work is done that every one of `paths` can be written; nothing is written here.

    Raises:
        BadInputError: a file is there already and `force` is off, a folder stands where a file must go, or the
            folder cannot be made or written to.
    """
    paths = list(paths)
    present = [path for path in paths if path.exists() or path.is_symlink()]
    folders = [path for path in present if path.is_dir()]
    if folders:
        raise BadInputError(f"cannot write {folders[0]}: a folder of that name is there; choose another output")
    if present and not force:
        more = f" and {len(present) - 1} more of the files to write" if len(present) > 1 else ""
        raise BadInputError(
            f"{present[0]}{more} exists already; choose another output folder or add --force to replace it"
        )
    for folder in sorted({path.parent for path in paths}):
        _require_writable(folder)


@contextmanager
def atomic_write(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Give a temporary name beside `path`; when the block ends well the file gets its name, else it is removed.

    The folder is made if missing. Data are flushed to the disk before the file is renamed, so that a reader sees
    the old file, none, or the whole new one.

    Raises:
        BadInputError: `path` exists and `force` is off, or the folder cannot be written to.
    """
    refuse_existing([path], force=force)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        # Another process may have written the same name while this one worked.
        refuse_existing([path], force=force)
        temporary.replace(path)
    except OSError as error:
        raise BadInputError(
            f"cannot write {path}: {error.strerror or error}; free space or change the output"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _require_writable(folder: Path) -> None:
    """Raise BadInputError unless files can be made in `folder`, or it can be made."""
    nearest = next((f for f in (folder, *folder.absolute().parents) if f.exists()), folder)
    if not nearest.is_dir():
        raise BadInputError(
            f"cannot write to {folder}: {nearest} is a file, not a folder; choose another output folder"
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise BadInputError(f"cannot write to {folder}: no permission in {nearest}; choose another output folder")
