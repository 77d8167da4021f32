"""The one training loop: seeded batches, running mean of the weights, checkpoints that a killed run goes on from.

Under `torchrun` each rank draws its own batches and gradients are averaged; ranks and ports come from the environment.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
import torch.distributed as distributed
from torch import Tensor, nn
from tqdm import tqdm

from mrcore.errors import BadInputError
from mrcore.io.atomic import atomic_write
from mrcore.random import seeded

logger = logging.getLogger(__name__)

Batch = TypeVar("Batch")
Model = TypeVar("Model", bound=nn.Module)

_VERSION = 1


@dataclass(frozen=True)
class TrainSettings:
    """Settings of `train`.

    The rate of Adam rises linearly over `n_warmup` steps and falls to 0 as a cosine over `n_steps`. The mean of the
    weights has the decay `ema`, less in the first steps. Gradients are clipped to the norm `clip`. `bf16` computes in
    bfloat16 where autocast does; weights stay in float32. `data` names what is trained on, so that a run is not resumed
    with something else.

    Raises:
        BadInputError: numbers out of range.
    """

    n_steps: int
    learning_rate: float = 5e-4
    n_warmup: int = 100
    ema: float = 0.999
    clip: float = 1.0
    bf16: bool = False
    checkpoint_every: int = 200
    seed: int = 0
    data: str = ""

    def __post_init__(self) -> None:
        if self.n_steps < 1 or self.n_warmup < 0 or self.checkpoint_every < 1:
            raise BadInputError(f"training needs steps and checkpoints from 1 and a warm-up from 0, got {self}")
        if not (0 < self.learning_rate < math.inf and self.clip > 0 and 0 <= self.ema < 1):
            raise BadInputError(f"training needs a positive rate and clip and ema in [0, 1), got {self}")

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        warm = min(1.0, (step + 1) / (self.n_warmup + 1))
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.n_steps)))


@dataclass(frozen=True, eq=False)
class Trained(Generic[Model]):
    """How a training ended: the `model` with the mean of its weights, and `history`, the loss of each step."""

    model: Model
    history: tuple[float, ...]


def train(
    model: Model,
    loss_of: Callable[[Model, Batch], Tensor],
    draw: Callable[[torch.Generator], Batch],
    settings: TrainSettings,
    checkpoint: Path | None = None,
    *,
    resume: bool = False,
) -> Trained[Model]:
    """Train `model` in place: each step lowers `loss_of(model, draw(generator))`, a scalar.

    The generator of a step depends on seed, rank and step alone, so a run that was killed and is resumed from
    `checkpoint` ends with the same bits as one that was not. The settings must be those of the checkpoint but for
    `n_steps` and `checkpoint_every`: a longer or shorter run follows its own schedule from there. With `resume` and
    no file at `checkpoint` training starts.

    Raises:
        BadInputError: the loss is no longer finite; a checkpoint that exists without `resume`, is damaged, or belongs
            to another training.
    """
    state = _State(model, settings)
    if checkpoint is not None and checkpoint.exists():
        if not resume:
            raise BadInputError(f"{checkpoint} exists already; resume from it, or choose another file")
        state.load(checkpoint)
    rank, n_ranks = _ranks()
    progress = tqdm(range(len(state.history), settings.n_steps), desc="training", disable=None)
    for step in progress:
        batch = draw(seeded(settings.seed, f"mrcore.train:{rank}:{step}"))
        loss = state.step(batch, loss_of, step, n_ranks)
        if not math.isfinite(loss):
            raise BadInputError(f"the loss is no longer finite at step {step}; lower the learning rate")
        state.history.append(loss)
        if checkpoint is not None and rank == 0 and (step + 1) % settings.checkpoint_every == 0:
            state.save(checkpoint)
            recent = state.history[-settings.checkpoint_every :]
            logger.info("step %d of %d: loss %.5g", step + 1, settings.n_steps, sum(recent) / len(recent))
    if checkpoint is not None and rank == 0:
        state.save(checkpoint)
    return Trained(state.mean, tuple(state.history))


class _State(Generic[Model]):
    """Everything that a checkpoint holds."""

    def __init__(self, model: Model, settings: TrainSettings) -> None:
        self.model, self.settings = model, settings
        self.mean = deepcopy(model).requires_grad_(False)
        self.optimiser = torch.optim.Adam(model.parameters(), settings.learning_rate)
        self.history: list[float] = []

    def step(self, batch: Batch, loss_of: Callable[[Model, Batch], Tensor], step: int, n_ranks: int) -> float:
        """Take one step and return the loss."""
        self.optimiser.param_groups[0]["lr"] = self.settings.rate(step)
        self.optimiser.zero_grad()
        kind = next(self.model.parameters()).device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.settings.bf16):
            loss = loss_of(self.model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        value = loss.detach()
        if n_ranks > 1:
            for part in (value, *(p.grad for p in self.model.parameters() if p.grad is not None)):
                distributed.all_reduce(part)
                part.div_(n_ranks)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimiser.step()
        # As long as there are few weights to average, their first values must not weigh.
        decay = min(self.settings.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            for mean, now in zip(self.mean.state_dict().values(), self.model.state_dict().values(), strict=True):
                mean.lerp_(now, 1 - decay) if mean.is_floating_point() else mean.copy_(now)
        return float(value)

    def save(self, path: Path) -> None:
        """Write the checkpoint, whole or not at all."""
        saved = {
            "version": _VERSION,
            "settings": asdict(self.settings),
            "model": self.model.state_dict(),
            "mean": self.mean.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "history": self.history,
        }
        with atomic_write(path, force=True) as temporary:
            torch.save(saved, temporary)

    def load(self, path: Path) -> None:
        """Take everything from the checkpoint."""
        saved = _read(path)
        free = {"n_steps", "checkpoint_every"}
        now = asdict(self.settings)
        other = [name for name in now if name not in free and saved["settings"].get(name) != now[name]]
        if other:
            text = ", ".join(f"{name} {saved['settings'].get(name)} (now {now[name]})" for name in other)
            raise BadInputError(f"{path} was written by a training with {text}; resume with the same settings")
        try:
            self.model.load_state_dict(saved["model"])
            self.mean.load_state_dict(saved["mean"])
            self.optimiser.load_state_dict(saved["optimiser"])
        except (RuntimeError, ValueError) as error:
            raise BadInputError(f"{path} belongs to another network ({error}); resume with the same sizes") from error
        self.history = list(saved["history"])


def _read(path: Path) -> dict[str, Any]:
    try:
        saved = torch.load(path, weights_only=True)
    except Exception as error:  # pickle, zip and torch raise many kinds
        raise BadInputError(f"{path} is not a checkpoint, or is damaged ({type(error).__name__})") from error
    if not isinstance(saved, dict) or saved.get("version") != _VERSION:
        raise BadInputError(f"{path} is not a checkpoint of this version of mrkit; start the training anew")
    return saved


def _ranks() -> tuple[int, int]:
    """Return rank and number of ranks, joining the group that `torchrun` describes in the environment."""
    n_ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if n_ranks == 1:
        return 0, 1
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return distributed.get_rank(), n_ranks
