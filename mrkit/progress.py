"""Progress of work in stages and steps: lines that say what is being done, where somebody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def stages(n_stages: int, noun: str = "stage") -> Iterator[Callable[[str], None]]:
    """Yield a function that announces the next of `n_stages`; silent where the output is not a terminal.

    `noun` is what one of them is called.
    """
    line = f"{{desc}} [{noun} {{n_fmt}} of {{total_fmt}}, {{elapsed}}]"
    with tqdm(total=n_stages, disable=None, leave=False, bar_format=line) as bar:

        def begin(what: str) -> None:
            bar.set_description_str(what, refresh=False)
            bar.update(1)
            bar.refresh()

        yield begin


@contextmanager
def steps(n_steps: int) -> Iterator[Callable[[], None]]:
    """Yield a function that counts one of at most `n_steps` iterations, below the line of the stage; 0: no line."""
    line = "iteration {n_fmt} of at most {total_fmt} [{elapsed}, {remaining} left]"
    with tqdm(total=n_steps, disable=None if n_steps else True, leave=False, bar_format=line) as bar:

        def step() -> None:
            bar.update(1)

        yield step
