"""``python -m sb3_rpg.modes`` on agents in RL Zoo's log folder."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_rpg.modes.__main__ import main
from sb3_rpg.modes.views import make_view, parse_descriptor
from sb3_rpg.zoo.agents import find_agent
from tests.conftest import small_rpg
from tests.zoo.conftest import run_python

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


def save_agent(
    logs: Path,
    model: Any,
    env_id: str,
    algo: str = "rpg",
    number: int = 1,
    config: dict[str, Any] | None = None,
    **arguments: Any,
) -> Path:
    """What RL Zoo's train leaves of a run."""
    run = logs / algo / f"{env_id}_{number}"
    (run / env_id).mkdir(parents=True)
    model.save(run / f"{env_id}.zip")
    (run / env_id / "config.yml").write_text(yaml.dump(config or {}))
    (run / env_id / "args.yml").write_text(yaml.dump({"env_kwargs": None, **arguments}))
    return run


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_an_agent_that_the_zoo_trained(trained: Path) -> None:
    output = run_python(
        trained,
        *("-m", "sb3_rpg.modes", "--algo", "rpg", "--env", "RPGMaze-v0", "-f", "logs", "-n", "12"),
        *("--slice-points", "3", "--slice-rollouts", "--device", "cpu", "--env-kwargs", "reward:'escape'"),
        hook=False,
    )
    folder = trained / "logs" / "rpg" / "RPGMaze-v0_1" / "modes"
    names = ["latents.csv", "modes.csv", "trajectories_by_mode.png", "trajectories_by_z.png", "returns_by_mode.png"]
    for name in [*names, "returns_by_z.png", "slice.png"]:
        assert (folder / name).stat().st_size > 0 and f"modes/{name}" in output
    assert any(folder.glob("modes.*4")) or any(folder.glob("modes.gif"))
    latents, modes = rows_of(folder / "latents.csv"), rows_of(folder / "modes.csv")
    assert len(latents) == 12 and list(latents[0])[:6] == ["latent", "mode", "return", "success", "length", "value"]
    assert all(row["length"] == "50" and row["success"] in "01" for row in latents)
    assert sum(int(row["episodes"]) for row in modes) == 12 and sum(float(row["share"]) for row in modes) == pytest.approx(1)
    for row in modes:
        mine = [latent for latent in latents if latent["mode"] == row["mode"]]
        assert len(mine) == int(row["episodes"])
        assert float(row["return_mean"]) == pytest.approx(np.mean([float(latent["return"]) for latent in mine]))
        typical = latents[int(row["latent"])]
        assert typical["mode"] == row["mode"] and typical["z_0"] == row["z_0"]
    assert f"{len(modes)} modes of 12 latents, effective number" in output


def test_normalised_and_without_pictures_of_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]), gamma=0.9)
    model = small_rpg(env).learn(30)
    run = save_agent(tmp_path, model, "Pendulum-v1", config={"normalize": "{'gamma': 0.9}"}, env_kwargs={"g": 5.0})
    env.save(str(run / "Pendulum-v1" / "vecnormalize.pkl"))
    agent = find_agent("rpg", "Pendulum-v1", str(tmp_path))
    made = agent.make_env(2)
    assert made.num_envs == 2 and isinstance(made, VecNormalize) and not made.training and not made.norm_reward
    raw = np.array([[0.3, -0.2, 4.0]])
    ours, expected = (np.asarray(wrapper.normalize_obs(raw)) for wrapper in (made, env))
    assert np.array_equal(ours, expected) and not np.allclose(ours, raw)
    assert [inner.g for inner in made.get_attr("unwrapped")] == [5.0, 5.0]
    monkeypatch.setattr("sb3_rpg.zoo.agents.SavedAgent.can_render", lambda _: False)
    assert main(["--env", "Pendulum-v1", "-f", str(tmp_path), "-n", "6", "-o", str(tmp_path / "out"), "--device", "cpu"]) == 0
    output = capsys.readouterr().out
    assert "no video: Pendulum-v1 has no render mode 'rgb_array'" in output
    assert not list((tmp_path / "out").glob("modes.mp4")) and (tmp_path / "out" / "slice.png").is_file()
    returns = [float(row["return"]) for row in rows_of(tmp_path / "out" / "latents.csv")]
    assert max(returns) < -10 and {row["success"] for row in rows_of(tmp_path / "out" / "latents.csv")} == {""}


def test_the_run_asked_for_is_taken(tmp_path: Path) -> None:
    model = small_rpg(gym.make("Pendulum-v1"))
    runs = [save_agent(tmp_path, model, "Pendulum-v1", number=number) for number in (1, 2)]
    model.save(runs[0] / "best_model.zip")
    model.save(runs[1] / "rl_model_500_steps.zip")
    cases: list[tuple[dict[str, Any], Path]] = [
        ({}, runs[1] / "Pendulum-v1.zip"),
        ({"exp_id": 1}, runs[0] / "Pendulum-v1.zip"),
        ({"exp_id": 1, "load_best": True}, runs[0] / "best_model.zip"),
        ({"load_checkpoint": 500}, runs[1] / "rl_model_500_steps.zip"),
        ({"load_last_checkpoint": True}, runs[1] / "rl_model_500_steps.zip"),
    ]
    for options, expected in cases:
        agent = find_agent("rpg", "Pendulum-v1", str(tmp_path), **options)
        assert agent.path == expected and agent.folder == expected.parent


@pytest.fixture
def maze_agent(tmp_path: Path) -> Path:
    save_agent(tmp_path, small_rpg(gym.make("RPGMaze-v0")).learn(20), "RPGMaze-v0")
    return tmp_path


def test_views(maze_agent: Path) -> None:
    agent = find_agent("rpg", "RPGMaze-v0", str(maze_agent), env_kwargs={"blocked": [(1, 0)]})
    model: Any = agent.load("cpu")
    env, z = agent.make_env(2), np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    default = make_view(model, env, z)
    assert default.maze == ((1, 0),) and default.labels == ("position[0]", "position[1]")
    turned = make_view(model, env, z, x=1, y=0)
    assert turned.maze is None and np.array_equal(turned.drawn[0].path, default.drawn[0].path[:, ::-1])
    observed = make_view(model, env, z, ["0", "1", "2"], x=2, y=0)
    np.testing.assert_allclose(observed.drawn[1].path[:, 1], 0.01 * default.drawn[1].path[:, 0], atol=1e-5)
    acted = make_view(model, env, z, ["actions"])
    assert np.array_equal(acted.trajectories[2].path[1:], acted.trajectories[2].actions) and acted.maze is None
    single = make_view(model, env, z, ["coverage"])
    assert single.trajectories[0].path.shape[1] == 1 and single.drawn[0].path.shape[1] == 2
    with pytest.raises(ValueError, match=r"--x 5: paths are described by 2 numbers \(position\), from 0 on"):
        make_view(model, env, z, x=5)
    with pytest.raises(ValueError, match="--descriptor position cell: give entries of the observation"):
        parse_descriptor(["position", "cell"])


def test_long_episodes_are_drawn_smoothed_where_nothing_else_is_asked_for(tmp_path: Path) -> None:
    model = small_rpg(gym.make("Pendulum-v1")).learn(20)
    save_agent(tmp_path, model, "Pendulum-v1")
    env = find_agent("rpg", "Pendulum-v1", str(tmp_path)).make_env(1)
    z = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    view = make_view(model, env, z)
    drawn, whole = view.drawn[0].path, view.trajectories[0].path
    assert drawn.shape == (42, 2) and whole.shape[0] == 201
    assert np.array_equal(drawn[[0, -1]], whole[[0, -1], :2])  # a start and an end are where they are
    assert view.labels[0].startswith("first component (")
    assert make_view(model, env, z, x=0, y=2).drawn[0].path.shape == (201, 2)


def test_a_renderer_that_fails_costs_the_video_alone(
    maze_agent: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("no OpenGL")

    monkeypatch.setattr("sb3_rpg.envs.maze.MazeEnv.render", broken)
    assert main(["--env", "RPGMaze-v0", "-f", str(maze_agent), "--device", "cpu", "-n", "4", "--slice-points", "0"]) == 0
    output = capsys.readouterr().out
    assert "no video: RPGMaze-v0 cannot render here: no OpenGL" in output and "latents.csv" in output


def test_errors(maze_agent: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def error_of(*options: str) -> str:
        assert main(["--env", "RPGMaze-v0", "-f", str(maze_agent), "--device", "cpu", "-n", "4", *options]) == 2
        return capsys.readouterr().err

    assert "has no folder 'rpg': name the log folder that RL Zoo's train wrote to (-f)" in error_of("-f", "nowhere")
    assert "algo='nonsense' is unknown to RL Zoo" in error_of("--algo", "nonsense")
    assert "env='Nonsense-v0' is not registered with gymnasium" in error_of("--env", "Nonsense-v0")
    assert "holds no such model of rpg on RPGMaze-v0" in error_of("--exp-id", "7")
    assert "holds no such model of rpg on RPGMaze-v0" in error_of("--load-best")
    assert "--n-latents 1: modes need at least two latents" in error_of("-n", "1")
    assert "--n-envs 0 must be at least 1" in error_of("--n-envs", "0")
    assert "gym_packages='no_such_package' cannot be imported" in error_of("--gym-packages", "no_such_package")
    assert "`descriptor`='speed' is no entry of the environment's info" in error_of("--descriptor", "speed")
    sac = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, buffer_size=10)
    save_agent(maze_agent, sac, "RPGMaze-v0", "sac")
    assert "--algo sac is SAC, which has no latent z: modes are RPG's" in error_of("--algo", "sac")
    save_agent(maze_agent, small_rpg(gym.make("RPGMaze-v0"), latent="none"), "RPGMaze-v0", number=2)
    assert "was trained with latent='none': without z, it has one mode" in error_of()
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    assert 'pip install "sb3_rpg[modes]"' in error_of("--exp-id", "1")
    monkeypatch.setitem(sys.modules, "rl_zoo3.utils", None)
    assert "RL Zoo cannot be imported" in error_of("--exp-id", "1")
