"""Progress of work in stages: a line that says what is being done, where somebody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def stages(n_stages: int) -> Iterator[Callable[[str], None]]:
    """Yield a function that announces the next of `n_stages`; silent where the output is not a terminal."""
    line = "{desc} [stage {n_fmt} of {total_fmt}, {elapsed}]"
    with tqdm(total=n_stages, disable=None, leave=False, bar_format=line) as bar:

        def begin(what: str) -> None:
            bar.set_description_str(what, refresh=False)
            bar.update(1)
            bar.refresh()

        yield begin
