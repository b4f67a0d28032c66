"""Modes watched during training: real event files, a record on disk, and no effect on what is learned."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from benchmarks.diagnosis_cases import Fork
from sb3_rpg.envs import MazeVecEnv
from sb3_rpg.modes import ModesCallback, effective_mode_count
from tests.conftest import changed, labelled_vec_env, parameters_of, small_rpg

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


def test_scalars_and_the_picture_are_in_the_event_file(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    bounds = ([-5.0, -5.0], [5.0, 5.0])
    callback = ModesCallback(
        MazeVecEnv(3, "sparse"), 20, n_latents=6, descriptor="position", bounds=bounds, n_logged=1, maze=True
    )
    small_rpg(MazeVecEnv(2), tensorboard_log=str(tmp_path)).learn(80, callback, tb_log_name="run")
    events = event_accumulator.EventAccumulator(str(tmp_path / "run_1"))
    events.Reload()
    scalars = {name.removeprefix("modes/") for name in events.Tags()["scalars"] if name.startswith("modes/")}
    expected = {"count", "effective_count", "best_return", "mean_return", "worst_return", "return_std", "spread"}
    assert scalars == expected | {"success_rate", "return_0", "share_0", "coverage", "qd_score", "state_entropy"}
    assert [event.step for event in events.Scalars("modes/count")] == [40, 80]
    assert events.Scalars("modes/spread")[-1].value > 0
    images = events.Images("modes/trajectories")
    assert [image.step for image in images] == [40, 80] and images[0].width > 300
    assert (
        images[0].encoded_image_string.startswith(b"\x89PNG")
        and images[0].encoded_image_string != images[1].encoded_image_string
    )


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
def test_training_does_not_notice(latent: str, deterministic: bool) -> None:
    plain = small_rpg(latent=latent).learn(40)
    state: Any = np.random.get_state()
    callback = ModesCallback(labelled_vec_env(2), 7, n_latents=3, deterministic=deterministic, picture=False)
    watched = small_rpg(latent=latent).learn(40, callback)
    assert len(callback.trajectories) == 3
    assert changed(parameters_of(plain.policy), watched.policy) == set()
    assert np.array_equal(state[1], np.random.get_state()[1])  # type: ignore[index]


def test_the_same_latents_at_each_evaluation_are_recorded_with_their_returns_and_modes(tmp_path: Path) -> None:
    env = make_vec_env(Fork, 2)
    callback = ModesCallback(env, 10, n_latents=8, log_path=tmp_path / "new", picture=False)
    small_rpg(make_vec_env(Fork, 1)).learn(30, callback)
    with np.load(tmp_path / "new" / "modes.npz") as log:
        assert log["timesteps"].tolist() == [10, 20, 30]
        assert log["latents"].shape == (3, 8, 3) and (log["latents"] == log["latents"][0]).all()
        assert np.allclose(log["returns"][-1], [t.episode_return for t in callback.trajectories])
        assert np.isnan(log["successes"]).all()
        for mode in callback.modes:
            assert (log["modes"][-1][mode.members] == mode.number).all()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["modes.npz"]
    measures = callback.measures()
    assert measures["effective_count"] == effective_mode_count(callback.modes)
    returns = [t.episode_return for t in callback.trajectories]
    assert measures["worst_return"] == min(returns) < max(returns)
    assert measures["best_return"] == max(returns) and measures["mean_return"] == pytest.approx(np.mean(returns))


def test_statistics_of_vec_normalize_are_those_of_training_and_returns_stay_raw() -> None:
    env, eval_env = VecNormalize(labelled_vec_env(1)), VecNormalize(labelled_vec_env(2), training=False)
    callback = ModesCallback(eval_env, 20, n_latents=2, picture=False)
    small_rpg(env).learn(20, callback)
    own, seen = cast(RunningMeanStd, env.obs_rms), cast(RunningMeanStd, eval_env.obs_rms)
    assert np.array_equal(own.mean, seen.mean) and seen.count > 20
    assert [t.episode_return for t in callback.trajectories] == pytest.approx([28.0, 28.0])
    for normalized, eval_normalized in ((True, False), (False, True)):
        train_env, other = (
            VecNormalize(labelled_vec_env(1)) if n else labelled_vec_env(1) for n in (normalized, eval_normalized)
        )
        with pytest.raises(ValueError, match="`eval_env` is not wrapped as the environment for training is"):
            small_rpg(train_env).learn(5, ModesCallback(other, 2, picture=False))


def test_actions_are_sampled_where_asked() -> None:
    model = small_rpg(make_vec_env(Fork, 1))
    for deterministic in (True, False):
        callback = ModesCallback(make_vec_env(Fork, 1), 10, 2, deterministic=deterministic, picture=False)
        model.learn(10, callback)
        (first, second), z = callback.trajectories, callback.trajectories[0].latent
        modes = [
            model.predict(np.zeros((1, 2), dtype=np.float32), t.latent[None], deterministic=True)[0][0]
            for t in (first, second)
        ]
        agree = np.allclose([first.actions[0], second.actions[0]], modes, atol=1e-5)
        assert agree == deterministic and z.shape == (3,)


def test_a_resumed_run_adds_to_the_record_of_its_evaluations(tmp_path: Path) -> None:
    def callback(n_latents: int = 4) -> ModesCallback:
        return ModesCallback(make_vec_env(Fork, 2), 10, n_latents, log_path=tmp_path, picture=False)

    model = small_rpg(make_vec_env(Fork, 1)).learn(20, callback())
    for _ in range(2):  # the second as after a crash: from where the first one began
        model.num_timesteps = 20
        model.learn(20, callback(), reset_num_timesteps=False)
        with np.load(tmp_path / "modes.npz") as log:
            assert log["timesteps"].tolist() == [10, 20, 30, 40] and log["latents"].shape == (4, 4, 3)
            assert log["returns"].shape == log["modes"].shape == log["successes"].shape == (4, 4)
    with pytest.raises(ValueError, match=r"holds evaluations of latents of the shape \(4, 3\), not \(5, 3\)"):
        model.learn(20, callback(5), reset_num_timesteps=False)
    model.learn(10, callback(5))
    with np.load(tmp_path / "modes.npz") as log:
        assert log["timesteps"].tolist() == [10]


def test_a_descriptor_of_one_dimension_is_drawn_over_time(tmp_path: Path) -> None:
    callback = ModesCallback(make_vec_env(Fork, 2), 10, n_latents=4, descriptor="position")
    model = small_rpg(make_vec_env(Fork, 1))
    model.set_logger(configure(str(tmp_path), ["csv"]))  # a format that cannot show pictures
    model.learn(10, callback)
    axes = callback._draw().axes[0]
    assert axes.get_xlabel() == "step" and "modes/count" in (tmp_path / "progress.csv").read_text()


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    env: Any = labelled_vec_env(1)
    with pytest.raises(ValueError, match="`eval_freq` must be at least 1, got 0"):
        ModesCallback(env, 0)
    with pytest.raises(ValueError, match="`n_latents` must be at least 2, got 1"):
        ModesCallback(env, n_latents=1)
    with pytest.raises(ValueError, match="latent='none' has none"):
        small_rpg(latent="none").learn(5, ModesCallback(env))
    with pytest.raises(ValueError, match="looks at the z of RPG; this is SAC"):
        SAC("MlpPolicy", "Pendulum-v1").learn(5, ModesCallback(env))
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r'ModesCallback needs sklearn: pip install "sb3_rpg\[modes\]"'):
        small_rpg().learn(5, ModesCallback(env))
