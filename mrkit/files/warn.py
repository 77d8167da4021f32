"""What a user must see of a result, on the terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from mrcore.notes import cautions

_log = logging.getLogger(__name__)


def warn_of(notes: Iterable[str]) -> None:
    """Log the cautions among `notes`, the worst first; jobs do so before they write, as `--strict` stops them here."""
    for note in cautions(notes):
        _log.warning(note)
