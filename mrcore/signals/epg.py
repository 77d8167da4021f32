"""Extended phase graph of FISP fingerprinting: unbalanced SSFP with constant RF phase, spoiled by its gradients.

Because the RF phase is constant the recursion is real: F+ = i p, F- = i m; `p`, `m` and Z have one row an order. With
the flip angle a and t = tan(a / 2) / 2:

    RF     Z += t (p - m);  p -= sin(a) Z;  m += sin(a) Z;  Z += t (p - m)      (three shears make the rotation)
    echo   p_0 exp(-TE / T2)
    relax  p, m *= exp(-TR / T2);  Z *= exp(-TR / T1);  Z_0 += 1 - exp(-TR / T1)
    shift  p_k <- p_(k-1);  m_k <- m_(k+1);  p_0 <- -m_1

Weigel, JMRI 2015;41:266. Orders above min(i, frames - 1 - i) at excitation i cannot reach the signal and are left out.
What makes it fast: the shift moves a window over a buffer instead of the data; the decay is kept apart as one number
an atom for p and m and one for Z, which enter the coefficients of the shears; atoms are sorted by T2, so that each
block carries the orders that it needs and stays in the cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mrcore.errors import BadInputError
from mrcore.signals.epg_plain import plain_signals
from mrcore.signals.mrf_sequence import MrfSequence

_CACHE_ELEMENTS = 60_000  # orders x atoms of one state: it and three like it stay in the cache of a core
_DEVICE_ELEMENTS = 4_000_000  # the same on a GPU, which is to be filled
_MAX_DECAY = 20.0  # exponent that the factors apart may reach before they are multiplied in; float32 holds e^87
_SLACK = 64  # shifts before the states are copied back to the start of their buffers
_MAX_SHEAR_RAD = 2.0  # larger flips are done in parts: tan(a / 2) diverges at 180 degrees
_PLAIN_ATOMS = 256  # at a time where derivatives are wanted: their states fill more memory
_FEW_ATOMS = 512  # below this all orders cost less than finding out how many are needed
_PROBED = (4, 6, 8, 10, 13, 17, 22, 28, 36, 46, 58, 74, 94, 120, 155, 200, 260, 330, 420)  # orders
_PROBE_RATIO = 1.5  # between neighbouring T2 for which the number of orders is found


@dataclass(frozen=True)
class SliceProfile:
    """Flip angle across the slice: `factors` times the nominal one, with `weights` that sum to one.

    Raises:
        BadInputError: unequal lengths, or weights that do not sum to one.
    """

    factors: tuple[float, ...] = (1.0,)
    weights: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if len(self.factors) != len(self.weights):
            raise BadInputError(f"{len(self.factors)} factors of a slice profile came with {len(self.weights)} weights")
        if not math.isclose(sum(self.weights), 1.0, abs_tol=1e-6):
            raise BadInputError(f"the weights of a slice profile must sum to 1, got {sum(self.weights):g}")


UNIFORM_SLICE = SliceProfile()


def fisp_signals(
    sequence: MrfSequence,
    t1_s: Tensor,
    t2_s: Tensor,
    b1: Tensor | None = None,
    profile: SliceProfile = UNIFORM_SLICE,
    tolerance: float = 1e-4,
) -> Tensor:
    """Return the signals (atoms, frames) of a FISP train per unit of PD, real: the transverse signal is i times it.

    `t1_s`, `t2_s` (atoms,), in the dtype and on the device of the result; `b1` (atoms,) scales the flip angles. The
    receiver follows the RF phase, which may only be 0 or 180 degrees. `tolerance` bounds the error that dropping
    orders leaves in an atom, relative to its norm (0: all orders, exact); see `orders_needed`. Where a gradient is
    asked for, plain operations do the work, in blocks that are computed again in the backward pass.

    Raises:
        BadInputError: times that are not positive, unequal lengths, other RF phases.
    """
    _check_atoms(t1_s, t2_s, b1)
    scale = torch.ones_like(t1_s) if b1 is None else b1
    parts = (
        weight * _signals(sequence, t1_s, t2_s, scale * factor, tolerance)
        for factor, weight in zip(profile.factors, profile.weights, strict=True)
    )
    total = next(parts)
    for part in parts:
        total = total + part
    return total


def orders_needed(sequence: MrfSequence, t1_s: Tensor, t2_s: Tensor, b1: Tensor, tolerance: float) -> Tensor:
    """Return the orders (atoms,) int64 that keep the error of truncation below `tolerance` of the norm of an atom.

    What is dropped at order K has climbed K repetitions and would need K more to come back, so that its echo decays
    as exp(-2 K TR / T2) at most; how much of it the flip angles turn back is found by simulation: probe atoms, whose
    T2 go up in steps, with the longest T1 (which keeps most) and both extremes of B1, are truncated at each order of a
    ladder and compared with all orders. An atom takes the order of the probe of next higher T2, at half the tolerance.
    """
    n_frames = sequence.n_frames
    low, high = float(t2_s.min()), float(t2_s.max())
    n_steps = max(1, math.ceil(math.log(high / low) / math.log(_PROBE_RATIO)))
    nodes = high * _PROBE_RATIO ** -torch.arange(n_steps, -1, -1, dtype=torch.float64)
    ladder = torch.tensor([order for order in _PROBED if 2 * order < n_frames] + [n_frames])
    b1_extremes = torch.unique(torch.stack([b1.min(), b1.max()]).double().cpu())
    axes = torch.meshgrid(ladder.double(), nodes, b1_extremes, indexing="ij")
    cutoff, t2, scale = (axis.reshape(-1) for axis in axes)
    t1 = torch.full_like(t2, float(t1_s.max()))
    flips, _ = _flips(sequence, scale)
    probes = _recursion(sequence, t1, t2, flips, n_frames, cutoff.long())
    probes = probes.reshape(n_frames, len(ladder), len(nodes), -1)
    error = (probes - probes[:, -1:]).norm(dim=0) / probes[:, -1:].norm(dim=0).clamp_min(1e-30)
    passed = (error.amax(-1) <= tolerance / 2).to(torch.int64)  # (ladder, nodes)
    needed = ladder[passed.argmax(0)].cummax(0).values
    at = torch.searchsorted(nodes, t2_s.double().cpu() * (1 - 1e-9)).clamp_max(len(nodes) - 1)
    return needed[at]


def _check_atoms(t1_s: Tensor, t2_s: Tensor, b1: Tensor | None) -> None:
    for name, values in (("t1_s", t1_s), ("t2_s", t2_s), ("b1", b1)):
        if values is None:
            continue
        if values.shape != t1_s.shape or values.ndim != 1 or not len(values):
            raise BadInputError(
                f"{name} must have one number an atom, got {tuple(values.shape)} for t1_s of shape {tuple(t1_s.shape)}"
            )
        if not bool((values > 0).all()) or not bool(values.isfinite().all()):
            raise BadInputError(f"{name} must be finite and above 0")


def _flips(sequence: MrfSequence, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return the flip angles in rad (frames, atoms) and the sign (frames, 1) that the receiver takes.

    An RF phase of 180 degrees is a negative flip seen by a receiver turned by 180 degrees.
    """
    turns = torch.zeros_like(sequence.flip_deg) if sequence.phase_deg is None else sequence.phase_deg / 180
    if not bool(((turns - turns.round()).abs() < 1e-6).all()):
        raise BadInputError(
            "the phase graph of FISP takes RF phases of 0 and 180 degrees only; a balanced train has another model"
        )
    sign = torch.where(turns.round().to(torch.int64) % 2 == 0, 1.0, -1.0).to(scale)[:, None]
    return torch.deg2rad(sequence.flip_deg).to(scale)[:, None] * sign * scale, sign


def _blocks(
    sequence: MrfSequence, t1_s: Tensor, t2_s: Tensor, scale: Tensor, tolerance: float
) -> list[tuple[Tensor, int]]:
    """Return index lists of atoms that need the same number of orders, of a size that suits the cache."""
    limit = _DEVICE_ELEMENTS if t1_s.is_cuda else _CACHE_ELEMENTS
    needed = torch.full(t1_s.shape, sequence.n_frames)
    if tolerance > 0 and len(t1_s) > _FEW_ATOMS:
        needed = orders_needed(sequence, t1_s, t2_s, scale, tolerance)
    by_t2 = torch.argsort(t2_s.cpu(), descending=True)  # and so by the orders needed; like T2 share their decay
    wanted = needed[by_t2].tolist()
    blocks, start = [], 0
    while start < len(wanted):
        n_orders = wanted[start]
        stop = start + max(64, limit // min(n_orders, max(1, sequence.n_frames // 2)))
        blocks.append((by_t2[start:stop].to(t1_s.device), n_orders))
        start = stop
    return blocks


def _signals(sequence: MrfSequence, t1_s: Tensor, t2_s: Tensor, scale: Tensor, tolerance: float) -> Tensor:
    blocks = _blocks(sequence, t1_s.detach(), t2_s.detach(), scale.detach(), tolerance)
    if torch.is_grad_enabled() and any(values.requires_grad for values in (t1_s, t2_s, scale)):
        return _differentiable(sequence, t1_s, t2_s, scale, blocks)
    result = torch.empty(len(t1_s), sequence.n_frames, dtype=t1_s.dtype, device=t1_s.device)
    one_flip = bool((scale == scale[0]).all())
    for atoms, n_orders in blocks:
        flips, sign = _flips(sequence, scale[:1] if one_flip else scale[atoms])
        echoes = _recursion(sequence, t1_s[atoms], t2_s[atoms], flips, n_orders)
        result.index_copy_(0, atoms, echoes.mul_(sign).T.contiguous())
    return result


def _differentiable(
    sequence: MrfSequence, t1_s: Tensor, t2_s: Tensor, scale: Tensor, blocks: list[tuple[Tensor, int]]
) -> Tensor:
    def signals(t1: Tensor, t2: Tensor, factor: Tensor, n_orders: int) -> Tensor:
        flips, sign = _flips(sequence, factor)
        return plain_signals(sequence, t1, t2, flips, n_orders) * sign[:, 0]

    parts = [
        checkpoint(signals, t1_s[atoms], t2_s[atoms], scale[atoms], n_orders, use_reentrant=False)
        for block, n_orders in blocks
        for atoms in torch.split(block, _PLAIN_ATOMS)
    ]
    order = torch.cat([block for block, _ in blocks])
    return torch.cat(parts)[torch.argsort(order)]


@dataclass(frozen=True, eq=False)
class _Coefficients:
    """What one block needs a frame, each (frames, atoms): shears, recovery and echo in the scale of the states."""

    shear: Tensor
    turn: Tensor
    recovery: Tensor
    echo: Tensor
    n_parts: list[int]
    rescale: dict[int, tuple[Tensor, Tensor]]


def _coefficients(sequence: MrfSequence, t1_s: Tensor, t2_s: Tensor, flips: Tensor) -> _Coefficients:
    """Return the coefficients; the decay is multiplied into the states at the frames of `rescale` only."""
    rate_1, rate_2 = 1 / t1_s, 1 / t2_s
    tr_s = sequence.tr_s.tolist()
    fastest = float(rate_2.max().maximum(rate_1.max()))
    since, elapsed_s, rescale = [], 0.0, {}
    for frame, repetition_s in enumerate(tr_s):
        since.append(elapsed_s)
        elapsed_s += repetition_s
        following_s = tr_s[frame + 1] if frame + 1 < len(tr_s) else 0.0
        if (elapsed_s + following_s) * fastest > _MAX_DECAY:
            rescale[frame] = (torch.exp(-elapsed_s * rate_2), torch.exp(-elapsed_s * rate_1))
            elapsed_s = 0.0
    since_s = torch.tensor(since, dtype=torch.float64).to(t1_s)
    repetition_s, echo_s = sequence.tr_s.to(t1_s), sequence.te_s.to(t1_s)
    n_parts = [max(1, math.ceil(angle / _MAX_SHEAR_RAD)) for angle in flips.abs().amax(1).tolist()]
    angles = flips / torch.tensor(n_parts).to(flips)[:, None]
    ratio = torch.outer(since_s, rate_1 - rate_2).exp_()  # scale of p and m over that of Z
    distinct_s, which = torch.unique(repetition_s, return_inverse=True)
    recovered = torch.expm1(torch.outer(-distinct_s, rate_1)).neg_()
    recovery = torch.outer(since_s + repetition_s, rate_1).exp_()
    recovery *= recovered if len(distinct_s) == 1 else recovered[which]
    return _Coefficients(
        shear=torch.tan(angles / 2) / 2 * ratio,
        turn=torch.div(torch.sin(angles).expand_as(ratio), ratio, out=ratio),
        recovery=recovery,
        echo=torch.outer(since_s + echo_s, -rate_2).exp_(),
        n_parts=n_parts,
        rescale=rescale,
    )


def _recursion(
    sequence: MrfSequence, t1_s: Tensor, t2_s: Tensor, flips: Tensor, n_orders: int, cutoff: Tensor | None = None
) -> Tensor:
    """Return p_0 at the echoes (frames, atoms); `flips` in rad (frames, atoms or 1).

    Order k of p lies at row _SLACK - moved + k of its buffer, that of m at row moved + k; `moved` grows by one with
    each shift, and when the slack is used up both windows are copied back. `cutoff` (atoms,) is the order that each
    atom is truncated at, on top of `n_orders` for all.
    """
    n_frames, n_atoms = sequence.n_frames, len(t1_s)
    use = _coefficients(sequence, t1_s, t2_s, flips)
    widest = min(n_orders, n_frames // 2 + 1)
    plus_buffer, minus_buffer = (t1_s.new_zeros(widest + _SLACK + 1, n_atoms) for _ in range(2))
    along_buffer, difference_buffer = (t1_s.new_zeros(widest, n_atoms) for _ in range(2))
    along_buffer[0] = sequence.prepared(t1_s)
    along, difference, equilibrium = along_buffer[:0], difference_buffer[:0], along_buffer[0]
    plus_rows, minus_rows, echo_rows = plus_buffer.unbind(), minus_buffer.unbind(), use.echo.unbind()
    shears, turns, recoveries = use.shear.unbind(), use.turn.unbind(), use.recovery.unbind()
    moved = 0
    for frame in range(n_frames):
        n = min(frame + 1, n_frames - frame, widest)
        if moved == _SLACK:
            plus_buffer[_SLACK:-1] = plus_buffer[:widest].clone()
            minus_buffer[:widest] = minus_buffer[_SLACK:-1].clone()
            minus_buffer[widest:] = 0
            moved = 0
        start = _SLACK - moved
        plus, minus = plus_buffer.narrow(0, start, n), minus_buffer.narrow(0, moved, n)
        if n != along.shape[0]:
            along, difference = along_buffer[:n], difference_buffer[:n]
        shear, turn = shears[frame], turns[frame]
        for _ in range(use.n_parts[frame]):
            torch.sub(plus, minus, out=difference)
            along.addcmul_(difference, shear)
            plus.addcmul_(along, turn, value=-1)
            minus.addcmul_(along, turn)
            torch.sub(plus, minus, out=difference)
            along.addcmul_(difference, shear)
        echo_rows[frame].mul_(plus_rows[start])
        equilibrium.add_(recoveries[frame])
        if frame in use.rescale:
            transverse, longitudinal = use.rescale[frame]
            plus.mul_(transverse)
            minus.mul_(transverse)
            along.mul_(longitudinal)
        if cutoff is not None:
            last = (cutoff - 1).clamp_max(n - 1)
            plus[last, torch.arange(n_atoms)] *= cutoff > n
        moved += 1
        torch.neg(minus_rows[moved], out=plus_rows[start - 1])
    return use.echo
