"""The search space of RPG."""

from __future__ import annotations

import inspect

import optuna
import pytest

from sb3_rpg import RPG
from sb3_rpg.zoo.sampler import LATENTS, MAX_HORIZON, convert_rpg_params, sample_rpg_params

NO_HER = {"using_her_replay_buffer": False, "her_kwargs": {}}


@pytest.fixture
def study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))


def test_every_sample_is_made_of_arguments_of_rpg(study: optuna.Study) -> None:
    known = set(inspect.signature(RPG.__init__).parameters)
    for _ in range(20):
        assert set(sample_rpg_params(study.ask(), 2, 1, NO_HER)) <= known


@pytest.mark.parametrize("latent", LATENTS)
def test_rpg_accepts_every_kind_of_latent(study: optuna.Study, latent: str) -> None:
    study.enqueue_trial({"latent": latent, "latent_dim": 2, "horizon": MAX_HORIZON})
    hyperparams = sample_rpg_params(study.ask(), 1, 1, NO_HER)
    assert hyperparams["latent"] == latent
    model = RPG("MlpPolicy", "Pendulum-v1", **hyperparams)
    assert model.latent_space.dim == 2


def test_a_trial_is_converted_to_what_was_sampled(study: optuna.Study) -> None:
    # RL Zoo converts `trial.params` when it loads a trial from a study
    trial = study.ask()
    sampled = sample_rpg_params(trial, 2, 1, NO_HER)
    assert convert_rpg_params(trial.params) == sampled
    # Whatever a file has for another latent, or another number of updates
    assert sampled["gradient_steps"] == 1 and sampled["latent_kwargs"] == {}
    assert trial.user_attrs == {"gamma": sampled["gamma"], "batch_size": sampled["batch_size"]}
    assert sampled["gamma"] == pytest.approx(1 - trial.params["one_minus_gamma"])
    assert sampled["batch_size"] == 2 ** trial.params["batch_size_pow"]


def test_hindsight_replay_is_tuned_where_it_is_used(study: optuna.Study) -> None:
    trial = study.ask()
    sampled = sample_rpg_params(trial, 2, 1, {"using_her_replay_buffer": True, "her_kwargs": {}})
    assert set(sampled["replay_buffer_kwargs"]) == {"n_sampled_goal", "goal_selection_strategy"}
    assert convert_rpg_params(trial.params) == sampled
    beside = {"copy_info_dict": True, "n_sampled_goal": 9}
    with_file = sample_rpg_params(study.ask(), 2, 1, {"using_her_replay_buffer": True, "her_kwargs": beside})
    assert with_file["replay_buffer_kwargs"]["copy_info_dict"] and with_file["replay_buffer_kwargs"]["n_sampled_goal"] < 9


@pytest.mark.parametrize(("noted", "longest"), [("1", 1), ("2", 2), ("3", MAX_HORIZON), ("8", MAX_HORIZON)])
def test_tasks_of_few_steps_keep_their_horizon(study: optuna.Study, noted: str, longest: int) -> None:
    study.set_user_attr("horizon", noted)  # as RL Zoo notes it
    assert {sample_rpg_params(study.ask(), 1, 1, NO_HER)["horizon"] for _ in range(60)} == set(range(1, longest + 1))


def test_what_the_file_says_of_the_bonus_and_of_z_does_not_meet_what_it_is_not_for(study: optuna.Study) -> None:
    assert sample_rpg_params(study.ask(), 1, 1, NO_HER)["latent_target_entropy"] == "auto"
    study.set_user_attr("intrinsic_reward", "icm")
    assert "intrinsic_reward" not in sample_rpg_params(study.ask(), 1, 1, NO_HER)
