"""Steps of the descent of a field; on an NVIDIA GPU captured as CUDA graphs.

A step is hundreds of short kernels; launched one by one they keep a GPU waiting. A graph launches them at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inr.fields.base import Field, Slabs
from inr.voxels import cosine
from mrcore.errors import BadInputError

Work = Callable[[], Tensor]
"""Computes a tensor from others that stay where they are, and may leave gradients in parameters."""


class Descent:
    """Adam on the parameters of a field, down an objective of its outputs on a lattice.

    `outputs` (n_outputs, n_points) are those of the last `look` at each point. The rate rises over four steps and
    falls with half a cosine over `n_steps`. `notes` say what did not go as meant.
    """

    def __init__(self, net: Field, slabs: Slabs, learning_rate: float, n_steps: int) -> None:
        self.net, self.slabs, self.learning_rate, self.n_steps = net, slabs, learning_rate, n_steps
        fused = slabs.device.type == "cuda"
        self.optimiser = torch.optim.Adam(net.parameters(), learning_rate, betas=(0.9, 0.99), fused=fused)
        self.outputs = torch.zeros(net.n_outputs, slabs.n_points, device=slabs.device)
        self.notes: list[str] = []
        self._looked: Work | None = None
        self._learned: Work | None = None
        self._objective: Callable[[Tensor], Tensor] | None = None

    def aim(self, objective: Callable[[Tensor], Tensor]) -> None:
        """Go down `objective`, a function of all outputs, from now on."""
        self._objective, self._learned = objective, None

    def look(self, now: Slabs, at: Tensor | slice) -> None:
        """Evaluate the field at the points `at`, which are those of `now`."""
        if now is not self.slabs:
            self._look(now, at)
            return
        self._looked = self._looked or self._repeated(lambda: self._look(self.slabs, at))
        self._looked()

    def learn(self, step: int, now: Slabs, at: Tensor | slice) -> float:
        """Change the parameters by what the objective says of the points of `now`; return the objective before.

        Raises:
            BadInputError: an objective that is not finite.
        """
        if now is not self.slabs:
            loss = float(self._gradients(now, at))
        else:
            self._learned = self._learned or self._repeated(lambda: self._gradients(self.slabs, at))
            loss = float(self._learned())
        if not math.isfinite(loss):
            raise BadInputError("the fit diverged; check the scan for outliers and the noise estimate")
        rate = self.learning_rate * cosine(step, self.n_steps) * min(1, (step + 1) / 4)
        self.optimiser.param_groups[0]["lr"] = rate
        self.optimiser.step()
        return loss

    def _look(self, now: Slabs, at: Tensor | slice) -> Tensor:
        self.outputs[:, at] = self.net.evaluate(now)
        return self.outputs

    def _gradients(self, now: Slabs, at: Tensor | slice) -> Tensor:
        """Put the gradients at the points of `now` into the parameters' `.grad`; return the objective."""
        if self._objective is None:
            raise ValueError("a descent needs an aim first")
        outputs = self.outputs.detach().requires_grad_(True)
        loss = self._objective(outputs)
        (gradient,) = torch.autograd.grad(loss, outputs)
        self.optimiser.zero_grad()
        self.net.backpropagate(now, gradient[:, at])
        return loss.detach()

    def _repeated(self, work: Work) -> Work:
        found = repeated(work, self.slabs.device)
        if found.note and found.note not in self.notes:
            self.notes.append(found.note)
        return found.run


@dataclass(frozen=True, eq=False)
class Repeated:
    """Work that `run` does again, with what its tensors then hold; `note` says why no graph was captured, if so.

    What a graph computes lies where it lay at the capture, gradients too: nothing else may put them elsewhere.
    """

    run: Work
    note: str = ""


def repeated(work: Work, device: torch.device) -> Repeated:
    """Return `work` as a graph where `device` is an NVIDIA GPU, else as it is.

    Errors of `work` itself are raised; where only the capture fails, `work` is run as it is and the `note` says so.
    """
    if device.type != "cuda":
        return Repeated(work)
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream()
        _tried(work)
        try:
            return Repeated(_captured(work))
        except RuntimeError as error:
            # A capture that broke off leaves its own stream current.
            torch.cuda.set_stream(stream)
            torch.cuda.synchronize()
            return Repeated(work, f"no CUDA graph was captured: {str(error).splitlines()[0]}")


def _tried(work: Work) -> None:
    """Run `work` once beside the current stream: libraries make workspaces at first, which a capture does not allow."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        work()
    torch.cuda.current_stream().wait_stream(aside)


def _captured(work: Work) -> Work:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()

    def run() -> Tensor:
        graph.replay()
        return result

    return run
