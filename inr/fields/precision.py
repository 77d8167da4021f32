"""Precision of float32 matrix products on a GPU: exact, or with factors rounded to tf32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def quick_products(device: torch.device) -> Iterator[None]:
    """Within, products on a GPU may round their factors to tf32 (10 bits of fraction), several times as fast.

    For networks, whose features bear it; not for positions or predictions. Nothing changes on the CPU, nor where
    `torch.use_deterministic_algorithms` asks for results that repeat. The setting is that of the whole process.
    """
    if torch.are_deterministic_algorithms_enabled():
        yield
    else:
        with _products("high", device):
            yield


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Within, products on a GPU are those of float32, also inside `quick_products`."""
    with _products("highest", device):
        yield


@contextmanager
def _products(precision: str, device: torch.device) -> Iterator[None]:
    # Threads of the CPU run side by side, where one would undo the setting of another.
    if device.type == "cpu":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
