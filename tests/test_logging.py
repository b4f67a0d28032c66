"""What is logged: losses by name, means since the last log, shares of the time."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.logger import configure

from tests.conftest import LabelledEnv, small_rpg

LOSSES = {"consistency_loss", "reward_loss", "value_loss", "termination_loss", "actor_loss", "posterior_loss", "ent_coef_loss"}
STATE = {"action_entropy", "beta_term", "posterior_accuracy", "value_estimate", "target_value", "value", "ent_coef", "beta"}
REWARDS = {"extrinsic_reward", "intrinsic_reward", "model_error_step_1", "model_error_step_2", "model_error_step_3"}
OTHER = {"n_updates", "actor_grad_norm", "model_grad_norm"}


def test_log_has_losses_by_name_entropies_rewards_model_errors_and_time_shares(tmp_path: Path) -> None:
    model = small_rpg(latent="categorical")
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(70, log_interval=2)
    with (tmp_path / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    last = {key: float(value) for key, value in rows[-1].items() if value}
    expected = {f"train/{name}" for name in LOSSES | STATE | REWARDS | OTHER | {"latent_loss", "latent_entropy"}}
    assert expected <= set(last), expected - set(last)
    assert {f"intrinsic/{name}" for name in ("loss", "error_mean", "error_std", "bonus_mean")} <= set(last)
    assert all(np.isfinite(value) for value in last.values())
    shares = [last["time/share_policy"], last["time/share_world_model"]]
    assert all(0 < share < 1 for share in shares) and sum(
        last[key] for key in last if key.startswith("time/share_")
    ) == pytest.approx(1)
    assert 0 <= last["train/posterior_accuracy"] <= 1 and last["train/n_updates"] == 59  # logged within a rollout
    assert last["train/latent_entropy"] <= np.log(3) + 1e-4
    assert last["rollout/ep_rew_mean"] == 28.0  # the environment's own: 1 + ... + 7
    assert 0 < last["train/extrinsic_reward"] < 35.0


def test_a_logged_value_is_the_mean_since_the_last_log(tmp_path: Path) -> None:
    model = small_rpg()
    model.set_logger(configure(str(tmp_path), []))
    for value in (1.0, th.tensor(3.0), th.tensor([5.0])):
        model.metrics.add({"x": value})
    model.metrics.add_time("a", 3.0)
    model.metrics.add_time("b", 1.0)
    model.metrics.record(model.logger)
    values = model.logger.name_to_value
    assert (values["train/x"], values["time/share_a"], values["time/share_b"]) == (3.0, 0.75, 0.25)
    model.logger.dump(0)
    for value in (5.0, 9.0):
        model.metrics.add({"x": value})
        model.metrics.record_means(model.logger)
    model.metrics.record(model.logger)
    assert model.logger.name_to_value["train/x"] == 7.0


def test_losses_are_in_the_log_of_whoever_dumps_it(tmp_path: Path) -> None:
    model = small_rpg(LabelledEnv(lengths=(10**6,)))
    model.learn(30)  # no episode ends, so that SB3 dumps nothing
    assert np.isfinite(model.logger.name_to_value["train/actor_loss"])
    other = small_rpg()
    other.replay_buffer = model.replay_buffer
    other.set_logger(configure(str(tmp_path), ["csv"]))
    other.train(3, 8)
    other.logger.dump(0)
    assert "train/actor_loss" in (tmp_path / "progress.csv").read_text()


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    small_rpg(tensorboard_log=str(tmp_path)).learn(30, tb_log_name="run", log_interval=1)
    assert [path.name for path in tmp_path.iterdir()] == ["run_1"]
    assert any("tfevents" in path.name for path in (tmp_path / "run_1").iterdir())
