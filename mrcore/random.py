"""Random numbers from explicit generators."""

from __future__ import annotations

import hashlib
import math

import torch


def seeded(seed: int, key: str) -> torch.Generator:
    """Return a CPU generator for `seed` and a stable text `key` (sha256, so the same in every process)."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """Draw a number, uniform between `low` and `high`."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def log_uniform(low: float, high: float, generator: torch.Generator) -> float:
    """Draw a positive number whose logarithm is uniform between those of `low` and `high`."""
    return math.exp(uniform(math.log(low), math.log(high), generator))


def normal(mean: float, sd: float, generator: torch.Generator) -> float:
    """Draw a number from a normal distribution."""
    return mean + sd * float(torch.randn((), generator=generator))


def below(n: int, generator: torch.Generator) -> int:
    """Draw a whole number from 0 to `n` - 1."""
    return int(torch.randint(n, (), generator=generator))


def chance(probability: float, generator: torch.Generator) -> bool:
    """Return true with this probability."""
    return uniform(0.0, 1.0, generator) < probability
