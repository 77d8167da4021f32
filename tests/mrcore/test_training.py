"""The training loop: it learns, and a run that was killed ends with the bits of one that was not."""

import os
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from mrcore.errors import BadInputError
from mrcore.random import seeded
from mrcore.training import TrainSettings, train

SETTINGS = TrainSettings(n_steps=30, learning_rate=0.05, n_warmup=3, ema=0.9, checkpoint_every=5, seed=4)


def line():
    model = nn.Linear(2, 1, bias=False)
    nn.init.constant_(model.weight, 0.5)
    return model


def draw(generator):
    x = torch.randn((16, 2), generator=generator)
    return x, x @ torch.tensor([[2.0], [-1.0]])


def squared(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()


class KilledError(Exception):
    """Stands for a signal."""


def killed_at(step):
    """Return a loss that ends the run at its call number `step`."""
    calls = []

    def loss(model, batch):
        calls.append(None)
        if len(calls) > step:
            raise KilledError
        return squared(model, batch)

    return loss


def test_training_learns():
    settings = TrainSettings(n_steps=300, learning_rate=0.05, n_warmup=5, ema=0.9)
    trained = train(line(), squared, draw, settings)
    assert len(trained.history) == 300
    assert trained.history[-1] < 1e-3 * trained.history[0]
    torch.testing.assert_close(trained.model.weight, torch.tensor([[2.0, -1.0]]), rtol=0, atol=0.01)


@pytest.mark.parametrize("step", [3, 5, 17])
def test_resumed_run_is_bit_identical(tmp_path, step):
    whole = train(line(), squared, draw, SETTINGS)
    with pytest.raises(KilledError):
        train(line(), killed_at(step), draw, SETTINGS, tmp_path / "state", resume=True)
    assert (tmp_path / "state").exists() == (step >= 5)
    resumed = train(line(), squared, draw, SETTINGS, tmp_path / "state", resume=True)
    assert torch.equal(resumed.model.weight, whole.model.weight)
    assert resumed.history == whole.history


def test_finished_run_is_not_trained_again(tmp_path):
    first = train(line(), squared, draw, SETTINGS, tmp_path / "state")
    again = train(line(), killed_at(0), draw, SETTINGS, tmp_path / "state", resume=True)
    assert torch.equal(again.model.weight, first.model.weight)


def test_longer_run_goes_on_from_a_shorter_one(tmp_path):
    train(line(), squared, draw, SETTINGS, tmp_path / "state")
    longer = TrainSettings(n_steps=40, learning_rate=0.05, n_warmup=3, ema=0.9, checkpoint_every=7, seed=4)
    assert len(train(line(), squared, draw, longer, tmp_path / "state", resume=True).history) == 40


def test_seed_decides_the_run():
    other = TrainSettings(n_steps=30, learning_rate=0.05, n_warmup=3, ema=0.9, seed=5)
    same, different = train(line(), squared, draw, SETTINGS), train(line(), squared, draw, other)
    assert same.history == train(line(), squared, draw, SETTINGS).history
    assert same.history != different.history


def test_mean_of_the_weights_is_smoother_than_the_last_ones():
    def noisy(model, batch):
        return squared(model, batch) + 3 * (model.weight * torch.randn((1, 2), generator=noise)).sum()

    noise = seeded(0, "noise")
    last = line()
    settings = TrainSettings(n_steps=400, learning_rate=0.05, n_warmup=0, ema=0.98)
    # The rate must not fall: the schedule would quieten both.
    object.__setattr__(settings, "rate", lambda _: 0.05)
    mean = train(last, noisy, draw, settings).model
    truth = torch.tensor([[2.0, -1.0]])
    assert (mean.weight - truth).norm() < 0.7 * (last.weight - truth).norm()


def test_rate_rises_then_falls_to_nothing():
    settings = TrainSettings(n_steps=1000, learning_rate=0.1, n_warmup=9)
    assert settings.rate(0) == pytest.approx(0.01)
    assert settings.rate(500) == pytest.approx(0.05)
    assert settings.rate(999) < 1e-5
    assert max(settings.rate(step) for step in range(1000)) < 0.1


def test_bfloat16_is_used_where_asked():
    kinds = []

    def loss(model, batch):
        kinds.append(model(batch[0]).dtype)
        return squared(model, batch)

    for bf16 in (False, True):
        trained = train(line(), loss, draw, TrainSettings(n_steps=1, bf16=bf16))
        assert trained.model.weight.dtype == torch.float32
    assert kinds == [torch.float32, torch.bfloat16]


def test_checkpoint_is_not_written_over(tmp_path):
    train(line(), squared, draw, SETTINGS, tmp_path / "state")
    with pytest.raises(BadInputError, match="exists already"):
        train(line(), squared, draw, SETTINGS, tmp_path / "state")


def test_checkpoints_of_other_trainings_are_refused(tmp_path):
    path = tmp_path / "state"
    train(line(), squared, draw, SETTINGS, path)
    with pytest.raises(BadInputError, match=r"seed 4 \(now 9\)"):
        train(line(), squared, draw, replace(SETTINGS, seed=9), path, resume=True)
    with pytest.raises(BadInputError, match="data "):
        train(line(), squared, draw, replace(SETTINGS, data="others"), path, resume=True)
    with pytest.raises(BadInputError, match="another network"):
        train(nn.Linear(3, 1), squared, draw, SETTINGS, path, resume=True)
    torch.save({"version": 0}, path)
    with pytest.raises(BadInputError, match="this version"):
        train(line(), squared, draw, SETTINGS, path, resume=True)
    path.write_bytes(b"rubbish")
    with pytest.raises(BadInputError, match="damaged"):
        train(line(), squared, draw, SETTINGS, path, resume=True)


def test_loss_that_is_not_finite_ends_the_run(tmp_path):
    with pytest.raises(BadInputError, match="step 0"):
        train(line(), lambda model, batch: squared(model, batch) * torch.nan, draw, SETTINGS, tmp_path / "state")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    "wrong", [{"n_steps": 0}, {"learning_rate": 0.0}, {"ema": 1.0}, {"clip": 0.0}, {"checkpoint_every": 0}]
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(BadInputError):
        TrainSettings(**{"n_steps": 1, **wrong})


_RANK = """
import sys, torch
from mrcore.training import TrainSettings, train
model = torch.nn.Linear(2, 1, bias=False)
torch.nn.init.constant_(model.weight, 0.5)
seen = []
def draw(generator):
    seen.append(torch.randn((16, 2), generator=generator))
    return seen[-1]
def loss(model, x):
    return (model(x) - x @ torch.tensor([[2.0], [-1.0]])).square().mean()
trained = train(model, loss, draw, TrainSettings(n_steps=20, learning_rate=0.05, n_warmup=3, ema=0.9))
print(repr((trained.model.weight.tolist(), float(seen[0][0, 0]), trained.history[-1])))
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_ranks_draw_their_own_batches_and_share_their_weights():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    base = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [
        subprocess.Popen([sys.executable, "-c", _RANK], env={**base, "RANK": str(n)}, stdout=subprocess.PIPE, text=True)
        for n in range(2)
    ]
    (weights, first, loss), (weights2, first2, loss2) = (eval(rank.communicate(timeout=120)[0]) for rank in ranks)
    assert weights == weights2
    assert loss == loss2
    assert first != first2
