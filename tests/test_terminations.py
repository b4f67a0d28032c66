"""Terminations are modelled once one was seen, wherever the transitions come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sb3_rpg import RPG
from tests.conftest import LabelledEnv, small_rpg


def test_terminations_are_modelled_once_one_has_been_seen_and_truncations_are_none() -> None:
    for terminates in (True, False):
        model = small_rpg(LabelledEnv(lengths=(15,), terminates=terminates))
        assert not model.learn(14).update_settings().model_terminations
        assert model.learn(16, reset_num_timesteps=False).update_settings().model_terminations == terminates


@pytest.mark.parametrize("terminates", [True, False])
def test_what_was_loaded_or_demonstrated_tells_terminations_and_the_scale_of_rewards(tmp_path: Path, terminates: bool) -> None:
    def env() -> LabelledEnv:
        return LabelledEnv(lengths=(15,), terminates=terminates, reward=1000.0)

    teacher = small_rpg(env()).learn(50)
    teacher.save_replay_buffer(tmp_path / "buffer.pkl")
    student, apprentice = small_rpg(env()), small_rpg(env())
    student.load_replay_buffer(tmp_path / "buffer.pkl")
    stored = teacher.replay_buffer
    for row in range(50):
        step = (stored.observations, stored.next_observations, stored.actions, stored.rewards, stored.dones)
        apprentice.replay_buffer.add(*(array[row] for array in step), [{"TimeLimit.truncated": bool(stored.timeouts[row, 0])}])
    for model in (student, apprentice):
        model.train_world_model(1)
        assert model.update_settings().model_terminations == terminates
        assert model._extrinsic_scale() == pytest.approx(teacher._extrinsic_scale()) and model._extrinsic_scale() < 1.0
    # A buffer of an earlier version does not say so itself
    vars(stored).pop("terminations_seen", None)
    teacher.save_replay_buffer(tmp_path / "older.pkl")
    student = small_rpg(env())
    student.load_replay_buffer(tmp_path / "older.pkl")
    student.train_world_model(1)
    assert student.update_settings().model_terminations == terminates
    # Also what is saved after it, and its planning
    student.save(tmp_path / "model.zip")
    assert RPG.load(tmp_path / "model.zip", device="cpu").planning_config(0).terminations == terminates


def test_with_weight_0_they_are_switched_off() -> None:
    model = small_rpg(LabelledEnv(lengths=(5,)), loss_weights={"termination": 0.0}).learn(30)
    assert model.replay_buffer.terminations_seen
    assert not model.update_settings().model_terminations and not model.planning_config(0).terminations


def test_terminations_are_those_that_targets_see() -> None:
    """Without SB3's handling of time limits, a truncation is the end of the world for the targets, and so for the model."""
    kwargs = {"replay_buffer_kwargs": {"handle_timeout_termination": False}}
    model = small_rpg(LabelledEnv(lengths=(15,), terminates=False), **kwargs).learn(20)
    assert model.replay_buffer.sample_segments(100, 1).terminated.any() and model.update_settings().model_terminations


def test_a_loaded_model_models_terminations_before_it_sees_another(tmp_path: Any) -> None:
    small_rpg(LabelledEnv(lengths=(15,))).learn(20).save(tmp_path / "model.zip")
    loaded = RPG.load(tmp_path / "model.zip", LabelledEnv(lengths=(500,)), "cpu")
    loaded.learn(15, reset_num_timesteps=False)
    assert not loaded.replay_buffer.terminations_seen and loaded.update_settings().model_terminations
