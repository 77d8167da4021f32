"""Fit the field of one subject to its scans: intensities and tissues together, through the forward model."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

from inr.fields.base import Field, FieldDesign, Slabs, part_of, slabs_of
from inr.fields.multilevel import FieldSettings
from inr.fitting.descent import Descent
from inr.fitting.prior import Prior, Pull
from inr.fitting.tissues import Resegment, TissueTerm, share_of_start, tissue_term
from inr.losses import total_variation
from inr.scans.single import Data, noise_on_lattice
from inr.voxels import ended
from mrcore.data.brief import Brief
from mrcore.data.grid import Grid
from mrcore.data.volume import TissueMap
from mrcore.errors import BadInputError
from mrcore.operators.linop import same_device
from mrcore.random import seeded
from mrcore.solvers import Solution


@dataclass(frozen=True)
class FitSettings:
    """Settings of `fit`; intensities are relative to WM = 1.

    `tv_weight` (per mm^2) and `tv_smoothing` (per mm) set the total variation. One weight serves all scans, since the
    noise scales the data term; of 0.75, 1.5 and 2.5 it was the best compromise of PSNR and edge F1 against the truth
    for the ICBM-152 template and for a piece of Colin27 at WM SNR 50.
    `tissue_tv_weight` is that of the tissue probabilities, over which one variation runs; 0 leaves it out.
    `tissue_weight` multiplies Dice + cross-entropy, counted once a scan voxel. `refresh_at` is the part of the steps
    after which the tissues' target learns from the image as it is then (see `inr.fitting.tissues`), and the data's own
    unknowns (poses, scales) are found again; so they are at half of it.
    `batch` is the part of the foreground, scattered voxels, that a step evaluates; the other voxels keep their last
    values in the objective, so the forward model is exact. It pays for fields that cost much per point.
    """

    field: FieldDesign = field(default_factory=FieldSettings)
    n_steps: int = 40
    learning_rate: float = 0.02
    tv_weight: float = 1.5
    tv_smoothing: float = 0.01
    tissue_tv_weight: float = 0.0
    tissue_weight: float = 0.1
    refresh_at: float = 0.5
    batch: float = 1.0

    def __post_init__(self) -> None:
        if self.n_steps < 1 or min(self.learning_rate, self.tv_smoothing) <= 0:
            raise BadInputError(f"a fit needs at least one step, a positive rate and a positive smoothing, got {self}")
        if min(self.tv_weight, self.tissue_tv_weight, self.tissue_weight) < 0 or not 0 <= self.refresh_at <= 1:
            raise BadInputError(f"a fit needs weights of at least 0 and refresh_at between 0 and 1, got {self}")
        if not 0 < self.batch <= 1:
            raise BadInputError(f"a fit needs a batch above 0 and up to 1, the part of all voxels, got {self}")

    @property
    def refreshes(self) -> tuple[int, ...]:
        """The steps before which tissues and the data's own unknowns are found again."""
        return tuple(sorted({round(part * self.refresh_at * self.n_steps) for part in (0.5, 1.0)}))


@dataclass(frozen=True, eq=False, repr=False)
class Fit(Brief):
    """A fitted subject on the lattice: `images` (C, X, Y, Z), `prob` (T, X, Y, Z), the `field`, how the fit ended.

    `solution.x` are the images; `solution.history` the objective per scan voxel at each step. `first` (C + T, n_points)
    is what the field's outputs are added to on the `foreground` (X, Y, Z, bool): the start, and the logits of tissues;
    these are bounded by `brain` (bool). `data` are those of the last step.
    """

    images: Tensor
    prob: Tensor
    field: Field
    solution: Solution
    first: Tensor
    foreground: Tensor
    brain: Tensor
    data: Data

    @property
    def image(self) -> Tensor:
        """The first image (X, Y, Z)."""
        return self.images[0]

    def to(self, device: torch.device | str) -> Fit:
        """Return the fit with all its tensors on `device`."""
        images = self.images.to(device)
        return Fit(
            images,
            self.prob.to(device),
            copy.deepcopy(self.field).to(device),
            replace(self.solution, x=images),
            self.first.to(device),
            self.foreground.to(device),
            self.brain.to(device),
            self.data.to(device),
        )


def fit(
    data: Data,
    lattice: Grid,
    start: Tensor,
    foreground: Tensor,
    tissues: TissueMap,
    seed: int,
    settings: FitSettings | None = None,
    resegment: Resegment | None = None,
    prior: Prior | None = None,
) -> Fit:
    """Fit images and tissues of one subject.

    The images are `start` (C, X, Y, Z; Tikhonov solutions) plus the field's first outputs in the `foreground` (bool),
    0 outside. Tissue logits are those of the initial segmentation `tissues` (on the lattice) plus the other outputs;
    its mask bounds the tissues of the result. `resegment` maps the first image to tissue probabilities (T, X, Y, Z), by
    which the target follows it, and the logits with each new target; without it the initial segmentation stays the
    target. `prior` improves the start and pulls the images towards what it holds for likely, in place of total
    variation. Intensities are relative to WM = 1.

    The fit runs where `data`, `start`, `foreground` and `tissues` are. On a CPU the same seed gives the same bytes,
    and so it does on an NVIDIA GPU for the default field and scans along the lattice's axes; for hash grids and oblique
    scans, whose sums there depend on chance, under `torch.use_deterministic_algorithms(True)`, which `fit` honours.

    Raises:
        BadInputError: starts that are not as many as the data's contrasts or not where the rest is, or a fit that
            diverged.
    """
    settings = settings or FitSettings()
    _require_start(start, data, lattice)
    _require_one_device(start, foreground, tissues.prob)
    brain = tissues.mask & foreground
    slabs = slabs_of(foreground)
    start = start * foreground
    pull = None if prior is None else prior.pull(data, start, foreground)
    start = start if pull is None else pull.start
    share = share_of_start(noise_on_lattice(data, foreground)[0])
    term = tissue_term(tissues, brain, start[0], resegment, share)
    problem = _Problem(lattice, start, foreground, brain, term.anchor)
    # Drawn on the CPU, so that every device begins with the same numbers.
    net = settings.field.build(lattice, len(start) + len(tissues.names), seeded(seed, "inr.fit:field")).to(start.device)
    descent = Descent(net, slabs, settings.learning_rate, settings.n_steps)
    batches, history = _batches(slabs, settings.batch, seeded(seed, "inr.fit:batches")), []
    if settings.batch < 1:
        descent.look(slabs, slice(None))
    for step in tqdm(range(settings.n_steps), desc="fitting the field", disable=None):
        now, at = next(batches)
        descent.look(now, at)
        if step in settings.refreshes:
            images = problem.images(descent.outputs).clamp_min(0)
            data, renewed = data.refreshed(images), term.refreshed(images)
            if renewed is not term:
                problem.follow(renewed.target, descent.outputs)
            term = renewed
        if step == 0 or step in settings.refreshes:
            descent.aim(partial(problem.objective, data=data, term=term, pull=pull, settings=settings))
        history.append(descent.learn(step, now, at) / data.n_values)
    done = _result(problem, net, slabs, history, data)
    return replace(done, solution=replace(done.solution, message="; ".join([done.solution.message, *descent.notes])))


def _require_start(start: Tensor, data: Data, lattice: Grid) -> None:
    expected = (data.n_contrasts, *lattice.shape)
    if tuple(start.shape) != expected:
        raise BadInputError(f"the start needs the shape {expected}, one image a contrast; got {tuple(start.shape)}")


def _require_one_device(start: Tensor, foreground: Tensor, prob: Tensor) -> None:
    for name, other in (("the foreground", foreground), ("the tissues", prob)):
        if not same_device(other.device, start.device):
            raise BadInputError(f"a fit needs one device: the start is on {start.device}, {name} on {other.device}")


def _batches(slabs: Slabs, part: float, generator: torch.Generator) -> Iterator[tuple[Slabs, Tensor | slice]]:
    """Yield the slabs of each step and which points they hold; each point comes once in a round of 1 / part steps."""
    n_batches = round(1 / part)
    while n_batches == 1:
        yield slabs, slice(None)
    while True:
        drawn = torch.randint(n_batches, (slabs.n_points,), generator=generator).to(slabs.device)
        for batch in range(n_batches):
            chosen = drawn == batch
            if bool(chosen.any()):
                yield part_of(slabs, chosen), chosen.nonzero()[:, 0]


class _Problem:
    """The objective over the field's outputs (C + T, n_points) on the foreground."""

    def __init__(self, lattice: Grid, start: Tensor, foreground: Tensor, brain: Tensor, anchor: Tensor) -> None:
        self.lattice, self.start = lattice, start
        self.foreground, self.brain = foreground, brain
        self.index = foreground.reshape(-1).nonzero()[:, 0]
        self.in_brain = brain.reshape(-1)[self.index].nonzero()[:, 0]
        self.first_logits = _logits_of(anchor)
        extent = [foreground.any(dim=axes).reshape(-1).nonzero()[:, 0] for axes in ((1, 2), (0, 2), (0, 1))]
        # One voxel more on each side: the step into the empty background counts.
        self.box = tuple(slice(max(int(e[0]) - 1, 0), int(e[-1]) + 2) for e in extent)

    def images(self, outputs: Tensor) -> Tensor:
        flat = self.start.flatten(1)
        return flat.index_add(1, self.index, outputs[: len(flat)]).reshape(self.start.shape)

    def logits(self, outputs: Tensor) -> Tensor:
        return self.first_logits + outputs[len(self.start) :].index_select(1, self.in_brain)

    def follow(self, target: Tensor, outputs: Tensor) -> None:
        """Move the first logits so that with `outputs` they give `target` (T, n), whose detail a field learns late."""
        self.first_logits = self.first_logits + _logits_of(target) - self.logits(outputs).detach()

    def maps(self, logits: Tensor) -> Tensor:
        """Return the probabilities of logits (T, n) on the lattice (T, X, Y, Z), 0 outside the brain."""
        flat = logits.new_zeros(len(logits), self.foreground.numel())
        flat = flat.index_copy(1, self.index[self.in_brain], torch.softmax(logits, 0))
        return flat.reshape(-1, *self.lattice.shape)

    def objective(
        self, outputs: Tensor, data: Data, term: TissueTerm, pull: Pull | None, settings: FitSettings
    ) -> Tensor:
        images = self.images(outputs)
        loss = data.misfit(images)
        if pull is None:
            part = images[(slice(None), *self.box)]
            variation = total_variation(part, self.lattice.spacing_mm, settings.tv_smoothing)
            # Contrasts share their edges: equal ones together vary sqrt(C) times as much as one.
            loss = loss + settings.tv_weight * math.sqrt(len(images)) * variation
        else:
            loss = loss + 0.5 * pull.weight * (images - pull.target).square().sum()
        logits = self.logits(outputs)
        if settings.tissue_tv_weight > 0:
            prob = self.maps(logits)[(slice(None), *self.box)]
            variation = total_variation(prob, self.lattice.spacing_mm, settings.tv_smoothing)
            loss = loss + settings.tissue_tv_weight * variation
        return loss + settings.tissue_weight * data.n_values * term.loss(logits)


def _logits_of(prob: Tensor) -> Tensor:
    return prob.clamp_min(0.02).log()


def _result(problem: _Problem, net: Field, slabs: Slabs, history: list[float], data: Data) -> Fit:
    with torch.no_grad():
        outputs = net.evaluate(slabs)
    images = problem.images(outputs).clamp_min(0)
    n_images = len(images)
    prob = problem.maps(problem.logits(outputs))
    first = torch.zeros_like(outputs)
    first[:n_images] = problem.start.flatten(1)[:, problem.index]
    first[n_images:, problem.in_brain] = problem.first_logits
    return Fit(images, prob, net, ended(images, history), first, problem.foreground, problem.brain, data)
