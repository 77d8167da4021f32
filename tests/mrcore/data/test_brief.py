from dataclasses import dataclass, field

import numpy as np
import torch

from mrcore.data.brief import Brief


@dataclass(frozen=True, eq=False, repr=False)
class Record(Brief):
    image: torch.Tensor
    affine: np.ndarray
    sd: float
    parts: tuple[torch.Tensor, ...]
    gains: dict[str, float]
    text: str
    cache: torch.Tensor = field(default_factory=lambda: torch.ones(3), repr=False)


def test_arrays_are_shapes_and_long_things_are_cut():
    few = Record(torch.ones(2, 3), np.eye(4), 1 / 3, (torch.ones(2),), {"WM": 0.12345}, "short")
    shapes = "image=float32 2 x 3, affine=float64 4 x 4, sd=0.3333, parts=(float32 2)"
    assert repr(few) == f"Record({shapes}, gains={{WM: 0.1235}}, text='short')"
    many = Record(torch.tensor(0.5), np.eye(4), 1.0, (torch.ones(2),) * 5, dict.fromkeys("abcde", 1.0), "x" * 100)
    assert "image=0.5, " in repr(many)
    assert "parts=<5>, gains=<5>" in repr(many)
    assert len(repr(many)) < 180
