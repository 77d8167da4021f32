"""Notes on a result, those among them that a user must not miss, and what is wrong with a file that is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


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


class Severity(StrEnum):
    """How bad something is: it cannot be used, may mislead, or is only worth knowing."""

    REFUSE = "refuse"
    CAUTION = "caution"
    NOTE = "note"


@dataclass(frozen=True)
class Problem:
    """Something wrong with an image; one to `REFUSE` makes it unusable."""

    text: str
    severity: Severity = Severity.REFUSE

    @property
    def fatal(self) -> bool:
        """Whether the image cannot be used."""
        return self.severity is Severity.REFUSE

    def noted(self, name: str) -> str:
        """Return it as a note on the image `name`: a caution where it is one."""
        text = f"{name}: {self.text}"
        return Caution(text) if self.severity is Severity.CAUTION else text
