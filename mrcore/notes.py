"""Notes on a result, and those among them that a user must not miss."""

from __future__ import annotations

from collections.abc import Iterable


class Caution(str):
    """A note that must be seen: the result is less than it seems (`rank` 1), or may be wrong (`rank` 0).

    It is text like any other note; the command line prints it, and `--strict` makes an error of it.
    """

    rank: int

    def __new__(cls, text: str, rank: int = 1) -> Caution:
        made = super().__new__(cls, text)
        made.rank = rank
        return made


def cautions(notes: Iterable[str]) -> list[Caution]:
    """Return the cautions among `notes`, each once, the worst first and else in their order."""
    found = dict.fromkeys(note for note in notes if isinstance(note, Caution))
    return sorted(found, key=lambda note: note.rank)


def prefixed(prefix: str, note: str) -> str:
    """Return the note with a prefix; a caution stays one."""
    text = f"{prefix}{note}"
    return Caution(text, note.rank) if isinstance(note, Caution) else text
