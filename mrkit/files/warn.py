"""What a user must see of a result, on the terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from mrcore.notes import cautions

EXIT_DONE, EXIT_LEFT_OUT = 0, 3

_log = logging.getLogger(__name__)


def warn_of(notes: Iterable[str]) -> None:
    """Log the cautions among `notes`, the worst first; jobs do so before they write, as `--strict` stops them here."""
    for note in cautions(notes):
        _log.warning(note)


def exit_code(left_out: Sequence[str]) -> int:
    """Return the exit code of a job that is done, and say so where it is done without some of its images."""
    if not left_out:
        return EXIT_DONE
    images = "1 image was" if len(left_out) == 1 else f"{len(left_out)} images were"
    _log.warning("%s left out, for the reasons above; the results are those of the rest", images)
    return EXIT_LEFT_OUT
