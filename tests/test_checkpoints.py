"""A run that stops and goes on is the run that never stopped; a process killed at any moment leaves a complete checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecCheckNan, VecEnv, VecFrameStack, VecMonitor, VecNormalize

from sb3_rpg import RPG, RunCheckpointCallback, latest_checkpoint, load_checkpoint
from sb3_rpg.buffers import LatentReplayBuffer
from sb3_rpg.checkpoints import write_checkpoint
from sb3_rpg.envs import MazeVecEnv
from tests.conftest import LabelledEnv, changed, labelled_vec_env, parameters_of, small_rpg

ROOT = Path(__file__).resolve().parents[1]


def maze(layers: str = "") -> VecEnv:
    """``layers``: "" nothing more, "all" is normalised, or the "reward" alone, or observations are "stacked"."""
    env: VecEnv = VecMonitor(MazeVecEnv(3, start_noise=0.5))
    if layers == "stacked":
        return VecCheckNan(VecFrameStack(env, 2), raise_exception=True)
    return VecNormalize(env, norm_obs=layers == "all") if layers else env


def everything(model: Any) -> dict[str, np.ndarray]:
    """All numbers that make up a run: parameters, optimizers, bonus, buffer, environment."""
    found: dict[str, np.ndarray] = {}

    def walk(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                walk(f"{name}.{key}", part)
        elif isinstance(value, th.Tensor):
            found[name] = value.detach().cpu().numpy()
        elif isinstance(value, (np.ndarray, int, float, bool)):
            found[name] = np.asarray(value)

    walk("", model.get_parameters())
    buffer = model.replay_buffer
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts", "latents", "episode_starts"):
        walk(f"buffer.{name}", getattr(buffer, name)[: buffer.size()])
    walk("env", MazeVecEnv.state_dict(model.get_env().unwrapped))
    walk("model", {key: getattr(model, key) for key in ("_last_obs", "_last_latents", "num_timesteps", "_n_updates")})
    return found


TRAIN = """
import sys
from sb3_rpg import RPG, load_checkpoint
from tests.test_checkpoints import everything, maze
import numpy as np
model, extra = load_checkpoint(sys.argv[1], RPG, maze(sys.argv[4]), device="cpu")
assert extra == {"note": 1}
model.learn(int(sys.argv[2]), reset_num_timesteps=False)
np.savez(sys.argv[3], **everything(model))
"""


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize(
    ("layers", "arguments"),
    [
        ("", {"novelty_share": 0.5}),
        ("all", {"latent": "categorical"}),
        ("stacked", {}),
        ("reward", {"plan_every": 3, "precision": "bf16", "ent_coef": 0.1}),
    ],
)
def test_a_new_process_goes_on_bit_for_bit(layers: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    model = small_rpg(maze(layers), **arguments).learn(200)
    path = write_checkpoint(tmp_path, model, extra={"note": 1})
    model.learn(130, reset_num_timesteps=False)
    result = tmp_path / "result.npz"
    subprocess.run(
        [sys.executable, "-c", TRAIN, str(path), "130", str(result), layers], check=True, env=environment(), cwd=ROOT
    )
    expected = everything(model)
    assert expected["model.num_timesteps"] >= 330 and expected["model._n_updates"] > 50
    with np.load(result) as found:
        assert set(found.files) == set(expected)
        assert [name for name in expected if not np.array_equal(found[name], expected[name], equal_nan=True)] == []


def test_two_shorter_runs_are_the_longer_one(tmp_path: Path) -> None:
    once = small_rpg(maze()).learn(330)
    first = small_rpg(maze()).learn(200)
    again, _ = load_checkpoint(write_checkpoint(tmp_path, first), RPG, maze(), device="cpu")
    again.learn(once.num_timesteps - first.num_timesteps, reset_num_timesteps=False)
    expected, found = everything(once), everything(again)
    assert [name for name in expected if not np.array_equal(found[name], expected[name])] == []


def test_the_same_seed_is_the_same_run_and_another_seed_is_not() -> None:
    first, second = (everything(small_rpg(maze()).learn(120)) for _ in range(2))
    assert [name for name in first if not np.array_equal(first[name], second[name])] == []
    other = everything(small_rpg(maze(), seed=1).learn(120))
    assert not np.array_equal(other["buffer.actions"], first["buffer.actions"])


def test_environments_that_cannot_be_restored_start_a_new_episode(tmp_path: Path) -> None:
    model = small_rpg(labelled_vec_env(2, lengths=(9,))).learn(30)
    path = write_checkpoint(tmp_path, model)
    loaded, extra = load_checkpoint(path, RPG, labelled_vec_env(2, lengths=(9,)), device="cpu")
    assert extra is None and loaded.replay_buffer.size() == 15
    loaded.learn(20, reset_num_timesteps=False)
    assert loaded.num_timesteps == 50
    assert loaded.replay_buffer.episode_starts[15].all()


def test_other_algorithms_too(tmp_path: Path) -> None:
    env = VecMonitor(MazeVecEnv(2))
    model = SAC("MlpPolicy", env, learning_starts=20, buffer_size=500, device="cpu", policy_kwargs={"net_arch": [8]})
    callback = RunCheckpointCallback(tmp_path, 20, keep=2, extra=lambda: "x")
    model.learn(50, callback)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000000040", "000000000050"]
    loaded, extra = load_checkpoint(tmp_path / "000000000050", SAC, VecMonitor(MazeVecEnv(2)), device="cpu")
    assert extra == "x" and loaded.num_timesteps == 50 and loaded.replay_buffer.size() == 25  # type: ignore[union-attr]


def test_random_actions_before_learning_go_on_too(tmp_path: Path) -> None:
    def make() -> SAC:
        arguments: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}, "buffer_size": 500, "device": "cpu", "seed": 0}
        return SAC("MlpPolicy", VecMonitor(MazeVecEnv(2)), learning_starts=100, **arguments)

    def actions(model: SAC) -> np.ndarray:
        assert model.replay_buffer is not None
        return model.replay_buffer.actions[: model.replay_buffer.size()]

    path = write_checkpoint(tmp_path, make().learn(40))
    loaded, _ = load_checkpoint(path, SAC, VecMonitor(MazeVecEnv(2)), device="cpu")
    assert np.array_equal(actions(loaded.learn(40, reset_num_timesteps=False)), actions(make().learn(80)))


class RestorableVecEnv(DummyVecEnv):
    """Episodes of two lengths, whose places are kept in checkpoints."""

    def __init__(self) -> None:
        super().__init__([partial(LabelledEnv, env_id=i, lengths=(length,)) for i, length in enumerate((10, 25))])

    def state_dict(self) -> dict[str, Any]:
        return {"places": [(env.episode, env.step_number) for env in self.envs]}  # type: ignore[attr-defined]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for env, (episode, step) in zip(self.envs, state["places"], strict=True):
            env.episode, env.step_number = episode, step  # type: ignore[attr-defined]


@pytest.mark.parametrize("steps", [13, 20])  # at an episode's end of one of two environments, and within both
def test_episodes_that_are_not_in_step_go_on(steps: int, tmp_path: Path) -> None:
    def episode_starts(model: RPG) -> np.ndarray:
        assert isinstance(model.replay_buffer, LatentReplayBuffer)
        return model.replay_buffer.episode_starts[: model.replay_buffer.size()]

    path = write_checkpoint(tmp_path, small_rpg(RestorableVecEnv()).learn(2 * steps))
    loaded, _ = load_checkpoint(path, RPG, RestorableVecEnv(), device="cpu")
    loaded.learn(80 - 2 * steps, reset_num_timesteps=False)
    whole = small_rpg(RestorableVecEnv()).learn(80)
    assert np.flatnonzero(episode_starts(loaded)[:, 1]).tolist() == [0, 25]
    assert np.array_equal(episode_starts(loaded), episode_starts(whole))
    assert not changed(parameters_of(whole.policy), loaded.policy)


def test_another_seed_draws_other_numbers(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, small_rpg(maze()).learn(30))

    def next_number(**kwargs: Any) -> float:
        load_checkpoint(path, RPG, maze(), device="cpu", **kwargs)
        return float(th.rand(1))

    assert next_number() == next_number() != next_number(seed=1) != next_number(seed=2)


def test_the_environment_that_the_constructor_took_is_taken_again(tmp_path: Path) -> None:
    for name, env in (("plain", gym.make("Pendulum-v1")), ("images", labelled_vec_env(space="image"))):
        policy = "MlpPolicy" if name == "plain" else "CnnPolicy"
        model = small_rpg(env, policy=policy).learn(20)
        loaded, _ = load_checkpoint(write_checkpoint(tmp_path / name, model), RPG, env, device="cpu")
        assert loaded.learn(10, reset_num_timesteps=False).num_timesteps == 30


def test_episodes_after_resuming_are_not_those_of_the_beginning(tmp_path: Path) -> None:
    def first_states(model: RPG, n: int) -> np.ndarray:
        buffer = model.replay_buffer
        assert buffer is not None
        return np.asarray(buffer.observations[: buffer.size()][buffer.episode_starts[: buffer.size()]])[-n:]

    model = small_rpg(gym.make("Pendulum-v1", max_episode_steps=5)).learn(20)
    path = write_checkpoint(tmp_path, model)
    before, after = first_states(model, 4), []
    for _ in range(2):
        again, _ = load_checkpoint(path, RPG, gym.make("Pendulum-v1", max_episode_steps=5), device="cpu")
        after.append(first_states(again.learn(20, reset_num_timesteps=False), 4))
    assert np.array_equal(after[0], after[1]), "the same checkpoint goes on in the same way"
    assert not np.isclose(before[:, None], after[0][None]).all(axis=-1).any()


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    model = small_rpg(maze()).learn(60)
    write_checkpoint(tmp_path, model, extra="before", keep=2)
    model.train(3, 16)  # from the buffer alone: no step is taken
    write_checkpoint(tmp_path, model, extra="after", keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["000000000060"]
    loaded, extra = load_checkpoint(tmp_path / "000000000060", RPG, maze(), device="cpu")
    assert extra == "after" and loaded._n_updates == model._n_updates
    # Killed in between, the old one is what is left
    (tmp_path / "000000000060").rename(tmp_path / "000000000060.replaced")
    found = latest_checkpoint(tmp_path)
    assert found is not None and load_checkpoint(found, RPG, maze(), device="cpu")[1] == "after"
    write_checkpoint(tmp_path, model, keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["000000000060"]
    with pytest.raises(ValueError, match="holds a checkpoint of step 60, this run is at step 0"):
        write_checkpoint(tmp_path, small_rpg(maze()))


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    class Meanwhile(BaseCallback):
        def _on_rollout_start(self) -> None:
            if self.num_timesteps == 30:
                (tmp_path / "000000000030").mkdir()

        def _on_step(self) -> bool:
            return True

    with pytest.raises(ValueError, match="holds 000000000030, the last that this run knows of is None: another run writes"):
        small_rpg(maze()).learn(60, [Meanwhile(), RunCheckpointCallback(tmp_path, 30)])


class Failing(LabelledEnv):
    def step(self, action: np.ndarray) -> Any:
        obs, reward, *rest = super().step(action)
        return obs, np.nan if self.episode == 5 else reward, *rest


def test_what_has_failed_does_not_take_the_last_checkpoints_place(tmp_path: Path) -> None:
    model, callback = small_rpg(Failing()), RunCheckpointCallback(tmp_path, 15)
    with pytest.raises(ValueError, match="non-finite reward"):
        try:
            model.learn(100, callback)
        finally:  # as RL Zoo ends training
            callback.on_training_end()
    assert [path.name for path in tmp_path.iterdir()] == ["000000000030"]
    callback.on_training_end()
    assert [path.name for path in tmp_path.iterdir()] == [f"{model.num_timesteps:012d}"]
    # While an error is being handled, a run that goes well is saved as ever
    try:
        raise KeyError
    except KeyError:
        small_rpg().learn(20, RunCheckpointCallback(tmp_path / "other", 100))
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["000000000020"]


def test_an_environments_id_will_do(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, small_rpg("Pendulum-v1").learn(20))
    assert load_checkpoint(path, RPG, "Pendulum-v1", device="cpu")[0].learn(5, reset_num_timesteps=False).num_timesteps == 25


def test_checkpoints_may_be_moved_away(tmp_path: Path) -> None:
    class Away(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == 45:
                (tmp_path / "000000000030").rename(tmp_path / "kept")
            return True

    small_rpg(maze()).learn(60, [Away(), RunCheckpointCallback(tmp_path, 30)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000000060", "kept"]


def test_another_run_does_not_take_the_place_of_one_that_is_further_on(tmp_path: Path) -> None:
    small_rpg(maze()).learn(60, RunCheckpointCallback(tmp_path, 30))
    with pytest.raises(ValueError, match=r"holds a checkpoint of step 60, this run is at step 0: go on with load_checkpoint"):
        small_rpg(maze(), seed=1).learn(60, RunCheckpointCallback(tmp_path, 30))
    assert [path.name for path in tmp_path.iterdir()] == ["000000000060"]
    again, _ = load_checkpoint(tmp_path / "000000000060", RPG, maze(), device="cpu")
    again.learn(30, RunCheckpointCallback(tmp_path, 30), reset_num_timesteps=False)
    assert [path.name for path in tmp_path.iterdir()] == ["000000000090"]


def test_errors(tmp_path: Path) -> None:
    model = small_rpg(maze())
    model.learn(20)
    with pytest.raises(ValueError, match="`keep` must be at least 1, got 0"):
        write_checkpoint(tmp_path, model, keep=0)
    with pytest.raises(ValueError, match="`save_freq` and `keep` must be at least 1, got 0 and 1"):
        RunCheckpointCallback(tmp_path, 0)
    assert latest_checkpoint(tmp_path) is None and latest_checkpoint(tmp_path / "nowhere") is None
    with pytest.raises(FileNotFoundError, match=r"is no checkpoint; latest_checkpoint\(folder\) finds"):
        load_checkpoint(tmp_path, RPG, maze())
    path = write_checkpoint(tmp_path, model)
    with pytest.raises(ValueError, match=r"`env` is made of the layers \['VecNormalize', .*make it as the one before"):
        load_checkpoint(path, RPG, maze("all"))


# ------------------------------------------------------------- killed processes

RUN = """
import sys
from sb3_rpg import RPG, RunCheckpointCallback, latest_checkpoint, load_checkpoint
from tests.conftest import small_rpg
from tests.test_checkpoints import maze
import torch
torch.set_num_threads(1)
path = latest_checkpoint(sys.argv[1])
model = small_rpg(maze(), buffer_size=20000) if path is None else load_checkpoint(path, RPG, maze(), device="cpu")[0]
class Shown(RunCheckpointCallback):
    def _on_step(self):
        print(self.num_timesteps, flush=True)
        return True
model.learn(10**6, Shown(sys.argv[1], 60), reset_num_timesteps=path is None)
"""


def steps_of(process: subprocess.Popen[str]) -> Iterator[int]:
    assert process.stdout is not None
    for line in process.stdout:
        yield int(line)


@pytest.mark.slow
def test_killed_at_any_moment_a_run_loses_less_than_an_interval(tmp_path: Path) -> None:
    n_kills = int(os.environ.get("SB3_RPG_KILLS", "6"))
    rng = np.random.default_rng(0)
    resumed_at = [0]
    for _ in range(n_kills):
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(tmp_path)], env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        steps = steps_of(process)
        next(steps)
        # Somewhere in the following seconds: while acting, training or writing
        time.sleep(rng.uniform(0.0, 2.0))
        process.send_signal(signal.SIGKILL)
        last = max([resumed_at[-1], *steps])
        process.wait()
        path = latest_checkpoint(tmp_path)
        if path is None:
            assert last < 63 + 3, "a checkpoint was due"
            continue
        assert 0 <= last - int(path.name) <= 63 + 3  # an interval, and the vector step that was under way
        model, _ = load_checkpoint(path, RPG, maze(), device="cpu")
        assert model.num_timesteps == int(path.name) and model.replay_buffer.size() == model.num_timesteps // 3
        assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())
        resumed_at.append(int(path.name))
    assert resumed_at[-1] > resumed_at[1]
