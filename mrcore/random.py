"""Random numbers from explicit generators."""

from __future__ import annotations

import hashlib

import torch


def seeded(seed: int, key: str) -> torch.Generator:
    """Return a CPU generator for `seed` and a stable text `key` (sha256, so the same in every process)."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
