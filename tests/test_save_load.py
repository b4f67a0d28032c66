"""A saved and loaded model is the model: parameters, optimizers, statistics, counters, the running episodes' z."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rpg import RPG, Ramp
from sb3_rpg.buffers import LatentReplayBuffer
from sb3_rpg.latents import LATENT_SPACES
from sb3_rpg.randomness import get_random_state, set_random_state
from tests.conftest import SMALL_POLICY, LabelledEnv, changed, labelled_vec_env, parameters_of, small_rpg


def saved(model: RPG) -> io.BytesIO:
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    return file


def load(model: RPG, **kwargs: Any) -> RPG:
    return RPG.load(saved(model), device="cpu", **kwargs)


def assert_same_state(first: Any, second: Any, where: str = "") -> None:
    """Compare nested state dicts."""
    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same_state(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for i, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_same_state(a, b, f"{where}[{i}]")
    elif isinstance(first, th.Tensor):
        assert th.equal(first, second), where
    else:
        assert first == second, where


@pytest.mark.parametrize("latent", LATENT_SPACES)
def test_parameters_optimizers_statistics_and_counters_are_kept(latent: str) -> None:
    model = small_rpg(labelled_vec_env(2, reward=100.0), latent=latent, ent_coef="auto_0.2").learn(60)
    loaded = load(model)
    assert changed(parameters_of(model.policy), loaded.policy) == set()
    assert model.bonus is not None and loaded.bonus is not None
    assert changed(parameters_of(model.bonus), loaded.bonus) == set()
    assert model.bonus.n_updates.item() == 25
    assert model.ent_coef_optimizer is not None and loaded.ent_coef_optimizer is not None
    optimizers = [model.world_model.optimizer, *model._policy_optimizers(), model.ent_coef_optimizer, model.bonus.optimizer]
    again = [loaded.world_model.optimizer, *loaded._policy_optimizers(), loaded.ent_coef_optimizer, loaded.bonus.optimizer]
    for first, second in zip(optimizers, again, strict=True):
        assert first.state_dict()["state"], "nothing was learned: nothing is tested"
        assert_same_state(first.state_dict(), second.state_dict())
    assert model.log_ent_coef is not None and loaded.log_ent_coef is not None
    assert th.equal(model.log_ent_coef, loaded.log_ent_coef) and loaded.log_ent_coef.requires_grad
    assert loaded.ent_coef_optimizer.param_groups[0]["params"][0] is loaded.log_ent_coef
    assert loaded.num_timesteps == 60 and loaded._n_updates == loaded._n_model_updates == 25
    assert loaded._return_scaler.factor == model._return_scaler.factor < 5.0
    assert loaded._terminations_seen
    assert np.array_equal(loaded._last_latents, model._last_latents)  # type: ignore[arg-type]
    assert loaded.actor.latent_temperature.item() == model.actor.latent_temperature.item()


@pytest.mark.parametrize("latent", LATENT_SPACES)
def test_predictions_without_environment_are_the_same(latent: str) -> None:
    model = small_rpg(latent=latent).learn(20)
    loaded = load(model)
    obs = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    for deterministic in (True, False):
        for plan_every in (None, 0):
            th.manual_seed(1)
            expected = model.predict(obs, deterministic=deterministic, plan_every=plan_every)
            th.manual_seed(1)
            actions, state = loaded.predict(obs, deterministic=deterministic, plan_every=plan_every)
            assert np.array_equal(actions, expected[0])
            assert state is not None and expected[1] is not None and np.array_equal(state[0], expected[1][0])


def continued(model: RPG) -> tuple[dict[str, th.Tensor], np.ndarray]:
    model.learn(30, reset_num_timesteps=False)
    return parameters_of(model.policy), model.replay_buffer.latents[: model.replay_buffer.size()].copy()


@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
def test_training_goes_on_bit_for_bit_within_the_same_episode(latent: str, tmp_path: Path) -> None:
    model = small_rpg(labelled_vec_env(2, lengths=(40, 5)), latent=latent, plan_every=2 if latent == "gaussian" else None)
    model.learn(40)
    env = copy.deepcopy(model.env)
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    file, randomness = saved(model), get_random_state()
    loaded = RPG.load(file, env=env, device="cpu", force_reset=False)
    loaded.load_replay_buffer(tmp_path / "buffer.pkl")
    th.manual_seed(7)  # what happens between load() and learn() does not matter
    parameters, latents = continued(loaded)
    set_random_state(randomness)
    expected, expected_latents = continued(model)
    assert_same_state(expected, parameters)
    assert np.array_equal(latents, expected_latents)
    if latent == "categorical":  # not replanned: one z for the first episode, across the saving
        assert len(np.unique(latents[:35, 0], axis=0)) == 1


def test_a_loaded_model_that_is_saved_again_keeps_its_randomness() -> None:
    model = small_rpg(labelled_vec_env(1)).learn(20)
    randomness = get_random_state()
    parameters = []
    for copies in (0, 2):
        set_random_state(randomness)
        loaded = load(model, env=labelled_vec_env(1))
        th.manual_seed(7)
        for _ in range(copies):
            loaded = load(loaded, env=labelled_vec_env(1))
        parameters.append(continued(loaded)[0])
    assert_same_state(parameters[0], parameters[1])


def test_by_default_a_loaded_model_starts_new_episodes_with_new_z() -> None:
    model = small_rpg(labelled_vec_env(1, lengths=(10, 40))).learn(15)
    loaded = load(model, env=labelled_vec_env(1, lengths=(40,)))
    assert np.array_equal(loaded._last_latents, model._last_latents)  # type: ignore[arg-type]
    loaded.learn(15, reset_num_timesteps=False)
    assert loaded.num_timesteps == 30
    assert loaded.replay_buffer.episode_starts[:15, 0].tolist() == [True] + [False] * 14
    assert not np.array_equal(loaded.replay_buffer.latents[0], model._last_latents)  # type: ignore[arg-type]


def test_loaded_with_another_number_of_environments() -> None:
    loaded = load(small_rpg(labelled_vec_env(1)).learn(15), env=labelled_vec_env(3))
    loaded.learn(30)
    assert loaded.replay_buffer.latents.shape[1] == 3 and loaded._last_latents is not None
    assert loaded._last_latents.shape == (3, 3)


@pytest.mark.parametrize("kind", ["vector", "dict"])
def test_replay_buffer_is_saved_with_z(kind: str, tmp_path: Path) -> None:
    policy = "MultiInputPolicy" if kind == "dict" else "MlpPolicy"
    model = small_rpg(labelled_vec_env(2, space=kind), policy).learn(40)
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    other = small_rpg(labelled_vec_env(2, space=kind), policy, seed=5)
    other.load_replay_buffer(tmp_path / "buffer.pkl")
    for buffer in (model.replay_buffer, other.replay_buffer):
        np.random.seed(3)
        segments = buffer.sample_segments(30, 3)
        if buffer is model.replay_buffer:
            expected = segments
    assert_same_state(expected._asdict(), segments._asdict())
    other.learn(20)
    assert other.replay_buffer.size() == 30


@pytest.mark.parametrize("normalize", [False, True])
def test_a_buffer_loaded_within_an_episode_is_not_joined_with_it(normalize: bool, tmp_path: Path) -> None:
    env: Any = labelled_vec_env(2, lengths=(50,))
    model = small_rpg(VecNormalize(env) if normalize else env).learn(20)
    model.save_replay_buffer(tmp_path / "older.pkl")
    model.learn(10, reset_num_timesteps=False).save_replay_buffer(tmp_path / "newest.pkl")
    for file, joined in (("newest.pkl", True), ("older.pkl", False)):
        model.load_replay_buffer(tmp_path / file)
        row = model.replay_buffer.pos
        model.learn(2, reset_num_timesteps=False)
        assert model.replay_buffer.episode_starts[row].tolist() == [not joined] * 2
        segments: Any = model.replay_buffer.sample_segments(400, 2)
        step = segments.next_observations[..., 2]
        assert ((step[1] == step[0] + 1) | ~segments.mask[1].bool()).all()


def test_a_buffer_of_another_class_is_refused(tmp_path: Path) -> None:
    class Own(LatentReplayBuffer):
        pass

    plain, own = small_rpg(), small_rpg(replay_buffer_class=Own)
    plain.save_replay_buffer(tmp_path / "buffer.pkl")
    with pytest.raises(ValueError, match=r"is a LatentReplayBuffer, the model's is a Own: .*`replay_buffer_class`"):
        own.load_replay_buffer(tmp_path / "buffer.pkl")


def test_alpha_that_is_fixed_and_intrinsic_reward_that_is_off() -> None:
    loaded = load(small_rpg(ent_coef=0.05, intrinsic_reward=None).learn(15))
    assert loaded.ent_coef == 0.05 and loaded.ent_coef_optimizer is None and loaded.bonus is None


def test_alpha_can_be_fixed_or_learned_after_loading() -> None:
    with pytest.warns(UserWarning, match="the model has no `ent_coef_optimizer`"):
        fixed = load(small_rpg().learn(15), env=LabelledEnv(), ent_coef=0.05)
    assert fixed.learn(15).update_settings().ent_coef == 0.05 and fixed.ent_coef_optimizer is None
    with pytest.warns(UserWarning, match="the file holds no `ent_coef_optimizer`"):
        learned = load(fixed, env=LabelledEnv(), ent_coef="auto_0.2")
    assert learned.update_settings().ent_coef == pytest.approx(0.2)
    assert learned.learn(30).update_settings().ent_coef != pytest.approx(0.2)


def test_another_learning_rate_of_the_bonus_is_heeded_after_loading() -> None:
    model = load(small_rpg().learn(15), env=LabelledEnv(), intrinsic_reward_kwargs={"width": 8, "learning_rate": 1e-5}).learn(
        15
    )
    assert model.bonus is not None and model.bonus.optimizer.param_groups[0]["lr"] == 1e-5


def test_what_none_stands_for_follows_the_horizon() -> None:
    model = load(small_rpg(target_horizon=None, head_steps=None), env=LabelledEnv(), horizon=5)
    assert model.update_settings().target_horizon == 5
    assert model.learn(15)._sample_segments()[2] is None  # the heads learn from all five steps


def test_schedules_survive_and_custom_objects_replace() -> None:
    model = small_rpg(beta=Ramp(1.0, 0.0, 0, 100), reward_scale={"initial": 1.0, "final": 2.0, "start": 0, "end": 100})
    model.learn(50)
    loaded = load(model)
    assert loaded.update_settings().beta == pytest.approx(0.5) and loaded._extrinsic_scale() == pytest.approx(1.5)

    replaced = load(model, custom_objects={"learning_rate": 7e-3, "beta": 0.125, "horizon": 2})
    assert replaced.lr_schedule(1.0) == 7e-3 and replaced.update_settings().beta == 0.125
    replaced.set_env(LabelledEnv())
    assert replaced.learn(20)._n_updates > model._n_updates
    assert replaced.actor.optimizer.param_groups[0]["lr"] == 7e-3


def test_policy_kwargs_must_be_those_it_was_saved_with() -> None:
    model = small_rpg()
    assert load(model, policy_kwargs=dict(SMALL_POLICY)).policy_kwargs == SMALL_POLICY
    with pytest.raises(ValueError, match="policy kwargs"):
        load(model, policy_kwargs={"net_arch": [5]})


def test_get_and_set_parameters() -> None:
    model, other = small_rpg(latent="categorical").learn(30), small_rpg(latent="categorical", seed=9).learn(20)
    parameters: Any = model.get_parameters()
    assert {"policy", "actor.optimizer", "actor.latent_optimizer", "world_model.optimizer", "posterior.optimizer"} <= set(
        parameters
    )
    other.set_parameters(parameters, exact_match=True)
    assert_same_state(other.get_parameters(), parameters)
    with pytest.raises(ValueError, match="Names of parameters do not match"):
        other.set_parameters({"policy": parameters["policy"]}, exact_match=True)
    # SB3's tests draw floats of every parameter's shape
    for name, tensor in [*model.policy.state_dict().items(), *model.bonus.state_dict().items()]:  # type: ignore[union-attr]
        assert tensor.is_floating_point(), name


class Unpicklable(BaseCallback):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def _on_step(self) -> bool:
        return True


def test_callbacks_environments_and_buffers_are_not_saved_with_the_model(tmp_path: Path) -> None:
    model = small_rpg(buffer_size=200_000).learn(20, Unpicklable())
    model.save(tmp_path / "model.zip")
    assert (tmp_path / "model.zip").stat().st_size < 400_000
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        data = archive.read("data").decode()
    for name in ("Callback", "LabelledEnv", 'replay_buffer"', '"bonus"', '"actor"', '"metrics"'):
        assert name not in data, name


def test_vec_normalize_is_loaded_beside_the_model(tmp_path: Path) -> None:
    env = VecNormalize(labelled_vec_env(1))
    model = small_rpg(env).learn(30)
    env.save(str(tmp_path / "vec_normalize.pkl"))
    again = VecNormalize.load(str(tmp_path / "vec_normalize.pkl"), labelled_vec_env(1))
    loaded = load(model, env=again)
    assert loaded._vec_normalize_env is again
    assert loaded.learn(20)._n_updates > model._n_updates


def test_saving_twice_gives_the_same_model_and_saving_changes_nothing() -> None:
    model = small_rpg().learn(20)
    before = parameters_of(model.policy)
    twice = load(load(model))
    assert changed(before, model.policy) == set() == changed(before, twice.policy)
    assert model.learn(10, reset_num_timesteps=False).num_timesteps == 30


@pytest.mark.slow
def test_loaded_in_another_process(tmp_path: Path) -> None:
    model = small_rpg("Pendulum-v1", latent="categorical", beta=Ramp(1.0, 0.0, 0, 100)).learn(15)
    model.save(tmp_path / "model.zip")
    code = (
        "import sys, numpy as np; from sb3_rpg import RPG\n"
        f"m = RPG.load({str(tmp_path / 'model.zip')!r}, device='cpu')\n"
        "print(m.predict(np.ones(3, dtype=np.float32), deterministic=True)[0].item())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    expected = model.predict(np.ones(3, dtype=np.float32), deterministic=True)[0].item()
    assert float(result.stdout.strip().splitlines()[-1]) == pytest.approx(expected, abs=1e-5)


def test_arguments_given_to_load_are_completed_and_checked_as_the_constructors() -> None:
    model = small_rpg().learn(20)
    replaced: dict[str, Any] = {
        "beta": {"initial": 1.0, "final": 0.0, "start": 0, "end": 100},  # as RL Zoo passes a file's settings on
        "loss_weights": {"value": 2.0},
        "target_horizon": None,
        "latent_kwargs": None,
    }
    loaded = load(model, env=LabelledEnv(), **replaced)
    assert loaded.beta == Ramp(1.0, 0.0, start=0, end=100) and loaded.update_settings().target_horizon == loaded.horizon
    assert loaded.loss_weights["value"] == 2.0 and loaded.loss_weights["reward"] > 0
    assert loaded.learn(20).num_timesteps == 20
    with pytest.raises(ValueError, match="`beta` must be a number of at least 0"):
        load(model, beta=-1.0)
    with pytest.raises(ValueError, match="`horizon`"):
        load(model, horizon=0)


def test_another_seed_given_to_load_is_another_continuation() -> None:
    file = saved(small_rpg().learn(20))
    results = []
    for arguments in ({}, {}, {"seed": 5}, {"seed": 6}):
        loaded = RPG.load(file, LabelledEnv(), "cpu", **arguments).learn(20, reset_num_timesteps=False)
        results.append(loaded.replay_buffer.actions[:20].tobytes())
    assert results[0] == results[1] and len(set(results)) == 3


def test_automatic_update_frequency_follows_the_number_of_environments(tmp_path: Path) -> None:
    small_rpg(labelled_vec_env(1), train_freq="auto").save(tmp_path / "auto.zip")
    small_rpg(labelled_vec_env(1), train_freq=7).save(tmp_path / "seven.zip")
    env = labelled_vec_env(5)
    assert RPG.load(tmp_path / "auto.zip", env, device="cpu").train_freq.frequency == 2  # type: ignore[union-attr]
    assert RPG.load(tmp_path / "auto.zip", env, device="cpu", train_freq=3).train_freq.frequency == 3  # type: ignore[union-attr]
    assert RPG.load(tmp_path / "seven.zip", env, device="cpu").train_freq.frequency == 7  # type: ignore[union-attr]
    again = RPG.load(tmp_path / "auto.zip", env, device="cpu")
    again.save(tmp_path / "again.zip")
    back = RPG.load(tmp_path / "again.zip", labelled_vec_env(1), device="cpu")
    assert back.train_freq.frequency == 10 and back.learn(30).num_timesteps == 30  # type: ignore[union-attr]


def test_another_seed_after_loading_is_heeded(tmp_path: Path) -> None:
    small_rpg().learn(30).save(tmp_path / "model.zip")

    def actions(seed: int | None) -> np.ndarray:
        model = RPG.load(tmp_path / "model.zip", LabelledEnv(), device="cpu")
        if seed is not None:
            model.set_random_seed(seed)
        return np.array(model.learn(20, reset_num_timesteps=False).replay_buffer.actions[:20])

    assert np.array_equal(actions(None), actions(None)) and np.array_equal(actions(1), actions(1))
    assert not np.array_equal(actions(1), actions(2)) and not np.array_equal(actions(1), actions(None))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_copies_train_as_the_original_would(precision: str) -> None:
    model = small_rpg(precision=precision).learn(30)
    state = get_random_state()
    copied = copy.deepcopy(model)
    model.learn(20, reset_num_timesteps=False)
    set_random_state(state)
    copied.learn(20, reset_num_timesteps=False)
    assert copied._n_updates == model._n_updates > 20
    assert changed(parameters_of(model.policy), copied.policy) == set()


@pytest.mark.parametrize(("saved", "loaded"), [("rnd", "none"), ("none", "rnd")])
def test_a_loaded_model_can_go_on_without_its_bonus_or_with_one(saved: str, loaded: str, tmp_path: Path) -> None:
    model = small_rpg(intrinsic_reward=saved).learn(30)
    model.save(tmp_path / "model.zip")
    with pytest.warns(UserWarning, match=r"no `bonus`: (that of the file is left out|the model's own is left as it is)"):
        again = RPG.load(tmp_path / "model.zip", LabelledEnv(), "cpu", intrinsic_reward=loaded)
    assert changed(parameters_of(model.policy), again.policy) == set()
    assert (again.bonus is None) == (loaded == "none")
    assert again.learn(20, reset_num_timesteps=False)._n_updates > model._n_updates


def test_a_loaded_model_that_begins_anew_forgets_the_scale_of_the_rewards_of_before(tmp_path: Path) -> None:
    small_rpg(LabelledEnv(reward=1e6)).learn(60).save(tmp_path / "model.zip")
    loaded = RPG.load(tmp_path / "model.zip", LabelledEnv(reward=0.01), "cpu")
    assert loaded._extrinsic_scale() < 1e-3
    assert (
        RPG.load(tmp_path / "model.zip", LabelledEnv(), "cpu").learn(20, reset_num_timesteps=False)._extrinsic_scale() < 1e-3
    )
    assert loaded.learn(20)._extrinsic_scale() == 5.0
