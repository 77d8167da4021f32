"""Fit the field of one subject to one scan: intensity and tissues together, through the forward model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from inr.baselines import cosine, ended
from inr.field import FieldSettings, GaborField, Slabs, backpropagate, evaluate, slabs_of
from inr.loss import data_term, dice_cross_entropy, total_variation
from mrcore.errors import BadInputError
from mrcore.grid import Grid
from mrcore.linop import LinearOp
from mrcore.noise import seeded
from mrcore.solve import Solution
from mrcore.volume import TissueMap

Resegment = Callable[[Tensor], Tensor]
"""From an image (X, Y, Z) on the lattice to tissue probabilities (T, X, Y, Z)."""


@dataclass(frozen=True)
class FitSettings:
    """Settings of `fit`; intensities are relative to WM = 1.

    `tv_weight` (per mm^2) and `tv_smoothing` (per mm) set the total variation. One weight serves all scans, since the
    noise scales the data term; of 0.75, 1.5 and 2.5 it was the best compromise of PSNR and edge F1 against the truth
    for the ICBM-152 template and for a piece of Colin27 at WM SNR 50.
    `tissue_weight` multiplies Dice + cross-entropy, counted once a scan voxel. `refresh_at` is the part of the steps
    after which the image as it is then is segmented; from there the target of the tissues is the mean of both.
    """

    field: FieldSettings = field(default_factory=FieldSettings)
    n_steps: int = 40
    learning_rate: float = 0.02
    tv_weight: float = 1.5
    tv_smoothing: float = 0.01
    tissue_weight: float = 0.1
    refresh_at: float = 0.5

    def __post_init__(self) -> None:
        if self.n_steps < 1 or min(self.learning_rate, self.tv_smoothing) <= 0:
            raise BadInputError(f"a fit needs at least one step, a positive rate and a positive smoothing, got {self}")
        if min(self.tv_weight, self.tissue_weight) < 0 or not 0 <= self.refresh_at <= 1:
            raise BadInputError(f"a fit needs weights of at least 0 and refresh_at between 0 and 1, got {self}")


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted subject on the lattice: `image` (X, Y, Z), `prob` (T, X, Y, Z), the `field` and how the fit ended.

    `solution.x` is the image; `solution.history` the objective per scan voxel at each step.
    """

    image: Tensor
    prob: Tensor
    field: GaborField
    solution: Solution


def fit(
    scan: Tensor,
    operator: LinearOp,
    lattice: Grid,
    noise_sd: float,
    start: Tensor,
    foreground: Tensor,
    tissues: TissueMap,
    seed: int,
    settings: FitSettings | None = None,
    resegment: Resegment | None = None,
) -> Fit:
    """Fit image and tissues of one subject.

    The image is `start` (X, Y, Z; a Tikhonov solution) plus the field's first output in the `foreground` (bool), 0
    outside. Tissue logits are those of the initial segmentation `tissues` (on the lattice) plus the other outputs; its
    mask bounds the tissues of the result. `resegment` maps an image to tissue probabilities (T, X, Y, Z); it refreshes
    the target once; without it the initial segmentation stays the target.
    `scan` has the operator's shape, `noise_sd` is per real channel; intensities are relative to WM = 1.
    """
    settings = settings or FitSettings()
    brain = tissues.mask & foreground
    slabs = slabs_of(foreground)
    problem = _Problem(scan, operator, lattice, noise_sd, start * foreground, foreground, brain, tissues.prob)
    generator = seeded(seed, "inr.fit:field")
    gabor = GaborField(lattice, settings.field, 1 + len(tissues.names), generator)
    optimiser = torch.optim.Adam(gabor.parameters(), settings.learning_rate, betas=(0.9, 0.99))
    history = []
    target = problem.anchor
    for step in tqdm(range(settings.n_steps), desc="fitting the field", disable=None):
        optimiser.param_groups[0]["lr"] = (
            settings.learning_rate * cosine(step, settings.n_steps) * min(1, (step + 1) / 4)
        )
        optimiser.zero_grad()
        outputs = evaluate(gabor, slabs).requires_grad_(True)
        if resegment is not None and step == round(settings.refresh_at * settings.n_steps):
            found = problem.in_order(resegment(problem.image(outputs.detach()).clamp_min(0)))
            # Smoother images give other partial volumes than sharper ones; neither is better, their mean is.
            target = 0.5 * (problem.anchor + found)
        loss = problem.objective(outputs, target, settings)
        loss.backward()  # type: ignore[no-untyped-call]
        if outputs.grad is None or not bool(torch.isfinite(loss)):
            raise BadInputError("the fit diverged; check the scan for outliers and the noise estimate")
        backpropagate(gabor, slabs, outputs.grad)
        optimiser.step()
        history.append(loss.item() / scan.numel())
    return _result(problem, gabor, slabs, history)


class _Problem:
    """The objective over the field's outputs (1 + T, n_points) on the foreground."""

    def __init__(
        self,
        scan: Tensor,
        operator: LinearOp,
        lattice: Grid,
        noise_sd: float,
        start: Tensor,
        foreground: Tensor,
        brain: Tensor,
        prob: Tensor,
    ) -> None:
        self.scan, self.operator, self.lattice, self.noise_sd = scan, operator, lattice, noise_sd
        self.start = start
        self.foreground, self.brain = foreground, brain
        self.index = foreground.reshape(-1).nonzero()[:, 0]
        self.in_brain = brain.reshape(-1)[self.index].nonzero()[:, 0]
        self.anchor = self.in_order(prob)
        self.first_logits = self.anchor.clamp_min(0.02).log()
        extent = [foreground.any(dim=axes).reshape(-1).nonzero()[:, 0] for axes in ((1, 2), (0, 2), (0, 1))]
        # One voxel more on each side: the step into the empty background counts.
        self.box = tuple(slice(max(int(e[0]) - 1, 0), int(e[-1]) + 2) for e in extent)

    def image(self, outputs: Tensor) -> Tensor:
        return self.start.reshape(-1).index_add(0, self.index, outputs[0]).reshape(self.start.shape)

    def logits(self, outputs: Tensor) -> Tensor:
        return self.first_logits + outputs[1:].index_select(1, self.in_brain)

    def in_order(self, prob: Tensor) -> Tensor:
        """Return tissue maps (T, X, Y, Z) at the brain's points (T, n), summing to one."""
        at = prob.reshape(prob.shape[0], -1)[:, self.index[self.in_brain]].clamp_min(1e-4)
        return at / at.sum(0)

    def objective(self, outputs: Tensor, target: Tensor, settings: FitSettings) -> Tensor:
        image = self.image(outputs)
        loss = data_term(self.operator, image, self.scan, self.noise_sd)
        part = image[self.box[0], self.box[1], self.box[2]]
        loss = loss + settings.tv_weight * total_variation(part, self.lattice.spacing_mm, settings.tv_smoothing)
        tissue = dice_cross_entropy(self.logits(outputs), target)
        return loss + settings.tissue_weight * self.scan.numel() * tissue


def _result(problem: _Problem, gabor: GaborField, slabs: Slabs, history: list[float]) -> Fit:
    outputs = evaluate(gabor, slabs)
    image = problem.image(outputs).clamp_min(0)
    prob = torch.zeros(outputs.shape[0] - 1, problem.brain.numel())
    prob[:, problem.index[problem.in_brain]] = torch.softmax(problem.logits(outputs), 0)
    return Fit(image, prob.reshape(-1, *image.shape), gabor, ended(image, history))
