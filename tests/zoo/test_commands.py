"""RL Zoo's commands with RPG, and with its baselines, in our environments: no flags beyond the Zoo's own."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.zoo.conftest import ROOT, SMALL_RPG, SMALL_SAC, Run, run_python


def test_train_writes_what_the_zoo_expects(trained: Path) -> None:
    folder = trained / "logs" / "rpg" / "RPGMaze-v0_1"
    with zipfile.ZipFile(folder / "RPGMaze-v0.zip") as model:
        assert {"data", "policy.pth"} <= set(model.namelist())
    assert (folder / "best_model.zip").is_file()
    assert sorted(path.name for path in folder.glob("rl_model_*")) == [f"rl_model_{n}_steps.zip" for n in (120, 60)]
    assert (folder / "replay_buffer.pkl").stat().st_size > 0
    evaluations = np.load(folder / "evaluations.npz")
    assert evaluations["timesteps"].tolist() == [60, 120]
    assert evaluations["results"].shape == (2, 2)
    assert np.isfinite(evaluations["results"]).all()


def test_train_uses_our_hyperparameters(trained: Path) -> None:
    path = ROOT / "hyperparams" / "rpg.yml"
    assert f"Loading hyperparameters from: {path}" in (trained / "train.log").read_text()
    ours = yaml.safe_load(path.read_text())
    expected = ours.get("RPGMaze-v0", ours["default"])
    saved = yaml.unsafe_load((trained / "logs" / "rpg" / "RPGMaze-v0_1" / "RPGMaze-v0" / "config.yml").read_text())
    overridden = dict(option.split(":", 1) for option in SMALL_RPG)
    assert {key: value for key, value in saved.items() if key not in overridden} == {
        key: value for key, value in expected.items() if key not in overridden
    }
    assert {key: saved[key] for key in overridden} == {key: eval(value) for key, value in overridden.items()}


@pytest.mark.parametrize(
    "options",
    [
        (),
        pytest.param(("--load-best", "--stochastic"), marks=pytest.mark.slow),
        pytest.param(("--load-checkpoint", "60"), marks=pytest.mark.slow),
        pytest.param(("--load-last-checkpoint",), marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_enjoy(trained: Path, options: tuple[str, ...]) -> None:
    output = run_python(
        trained,
        *("-m", "rl_zoo3.enjoy", "--algo", "rpg", "--env", "RPGMaze-v0", "-f", "logs", "--no-render", "-n", "101"),
        *options,
    )
    assert output.count("Episode Length 50") == 2
    assert "2 Episodes" in output


@pytest.mark.slow
def test_enjoy_shows_a_window(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # no screen is needed
    output = run_python(trained, *("-m", "rl_zoo3.enjoy", "--algo", "rpg", "--env", "RPGMaze-v0", "-f", "logs", "-n", "51"))
    assert "1 Episodes" in output


@pytest.mark.slow
def test_enjoy_several_environments(trained: Path) -> None:
    output = run_python(
        trained,
        *("-m", "rl_zoo3.enjoy", "--algo", "rpg", "--env", "RPGMaze-v0", "-f", "logs", "--no-render"),
        *("-n", "60", "--n-envs", "2", "--reward-log", "rewards"),
    )
    assert "Loading" in output
    # One monitor file for each environment, with a header and one finished episode each
    monitors = sorted((trained / "rewards").glob("*.monitor.csv"))
    assert [len(path.read_text().splitlines()) for path in monitors] == [3, 3]


@pytest.mark.slow
def test_continue_training_from_the_saved_buffer(trained: Path, run: Run, tmp_path: Path) -> None:
    output = run(
        *("-m", "rl_zoo3.train", "--algo", "rpg", "--env", "RPGMaze-v0", "-n", "60", "--eval-freq", "-1"),
        *("-i", str(trained / "logs" / "rpg" / "RPGMaze-v0_1" / "RPGMaze-v0.zip"), "-params", *SMALL_RPG),
    )
    assert "Loading pretrained agent" in output
    assert "Loading replay buffer" in output
    assert (tmp_path / "logs" / "rpg" / "RPGMaze-v0_1" / "RPGMaze-v0.zip").is_file()


@pytest.mark.slow
def test_train_in_subprocesses_with_progress_bar_and_tensorboard(run: Run, tmp_path: Path) -> None:
    output = run(
        *("-m", "rl_zoo3.train", "--algo", "rpg", "--env", "RPGMaze-v0", "-n", "120", "--eval-freq", "-1"),
        *("--vec-env", "subproc", "--progress", "-tb", "tensorboard", "-params", *SMALL_RPG, "n_envs:2"),
    )
    assert "Using 2 environments" in output
    assert "120/120" in output
    assert len(list((tmp_path / "logs" / "rpg" / "RPGMaze-v0_1").glob("*.monitor.csv"))) == 2
    (events,) = (tmp_path / "tensorboard").rglob("events.out.tfevents.*")
    assert events.stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["rpg", "sac_rnd"])
def test_optimize_and_train_with_a_trial(run: Run, tmp_path: Path, algo: str) -> None:
    train = ("-m", "rl_zoo3.train", "--algo", algo, "--env", "RPGMaze-v0", "-n", "60")
    study = ("--storage", "sqlite:///study.db", "--study-name", "study")
    output = run(
        *(*train, *study, "-optimize", "--n-trials", "2", "--no-optim-plots"),
        *("--n-evaluations", "1", "--eval-episodes", "1", "-params", "learning_starts:20"),
    )
    assert "Number of finished trials:  2" in output
    (report,) = (tmp_path / "logs" / algo).glob("report_RPGMaze-v0_2-trials-*.csv")
    header, *trials = report.read_text().splitlines()
    learning_rate = header.split(",").index("params_learning_rate")
    assert [line.rsplit(",", 1)[1] for line in trials] == ["COMPLETE", "COMPLETE"]

    output = run(*train, *study, "--trial-id", "1", "--eval-freq", "-1", "-params", "learning_starts:20")
    assert "Loading from Optuna study" in output
    # Optimizing has left a folder of its own
    config = tmp_path / "logs" / algo / "RPGMaze-v0_2" / "RPGMaze-v0" / "config.yml"
    hyperparams = dict(yaml.unsafe_load(config.read_text()))
    assert hyperparams["learning_rate"] == pytest.approx(float(trials[1].split(",")[learning_rate]))
    assert "one_minus_gamma" not in hyperparams


def test_sac_in_our_environment(run: Run, tmp_path: Path) -> None:
    run(
        *("-m", "rl_zoo3.train", "--algo", "sac", "--env", "RPGBandit-v0", "-n", "40", "--eval-freq", "-1"),
        *("-params", *SMALL_SAC),
    )
    assert (tmp_path / "logs" / "sac" / "RPGBandit-v0_1" / "RPGBandit-v0.zip").is_file()


def test_sac_with_intrinsic_reward(run: Run, tmp_path: Path) -> None:
    output = run(
        *("-m", "rl_zoo3.train", "--algo", "sac_rnd", "--env", "RPGMaze-v0", "-n", "60", "--eval-freq", "-1"),
        *("--log-interval", "1", "-params", *SMALL_SAC, "n_envs:1"),
    )
    assert f"Loading hyperparameters from: {ROOT / 'hyperparams' / 'sac_rnd.yml'}" in output
    assert "intrinsic_rew_mean" in output
    assert (tmp_path / "logs" / "sac_rnd" / "RPGMaze-v0_1" / "RPGMaze-v0.zip").is_file()


@pytest.mark.slow
def test_continue_and_enjoy_sac_with_intrinsic_reward(run: Run, tmp_path: Path) -> None:
    train = (
        *("-m", "rl_zoo3.train", "--algo", "sac_rnd", "--env", "RPGMaze-v0", "-n", "60"),
        *("--eval-freq", "50", "--eval-episodes", "1", "--save-replay-buffer"),
    )
    run(*train, "-params", *SMALL_SAC, "n_envs:1")
    first = tmp_path / "logs" / "sac_rnd" / "RPGMaze-v0_1"
    assert (first / "replay_buffer.pkl").is_file()
    output = run(*train, "-i", str(first / "RPGMaze-v0.zip"), "-params", *SMALL_SAC, "n_envs:1")
    assert "Loading replay buffer" in output
    assert "intrinsic_rew_mean" in output
    output = run("-m", "rl_zoo3.enjoy", "--algo", "sac_rnd", "--env", "RPGMaze-v0", "-f", "logs", "--no-render", "-n", "51")
    assert "id=2" in output
    assert "1 Episodes" in output


@pytest.mark.slow
def test_rpg_in_a_foreign_environment(run: Run, tmp_path: Path) -> None:
    run(
        *("-m", "rl_zoo3.train", "--algo", "rpg", "--env", "Pendulum-v1", "-n", "220", "--eval-freq", "200"),
        *("--eval-episodes", "1", "-params", *SMALL_RPG, "normalize:True"),
    )
    folder = tmp_path / "logs" / "rpg" / "Pendulum-v1_1"
    assert (folder / "Pendulum-v1" / "vecnormalize.pkl").is_file()
    output = run("-m", "rl_zoo3.enjoy", "--algo", "rpg", "--env", "Pendulum-v1", "-f", "logs", "--no-render", "-n", "200")
    assert "Loading running average" in output
    assert "1 Episodes" in output


@pytest.mark.slow
def test_record_video_and_plots(trained: Path) -> None:
    run_python(
        trained,
        *("-m", "rl_zoo3.record_video", "--algo", "rpg", "--env", "RPGMaze-v0", "-f", "logs", "-n", "20", "-o", "videos"),
    )
    (video,) = (trained / "videos").glob("*.mp4")
    assert video.stat().st_size > 0
    output = run_python(
        trained,
        *("-m", "rl_zoo3.cli", "all_plots", "-a", "rpg", "-e", "RPGMaze-v0", "-f", "logs", "--no-display", "-o", "results"),
    )
    assert "RPGMaze-v0" in output
    assert (trained / "results.pkl").is_file()


def test_without_the_hook_the_zoo_is_as_it_was(run: Run) -> None:
    output = run("-m", "rl_zoo3.train", "--algo", "rpg", "--env", "RPGMaze-v0", hook=False, expect=2)
    assert "invalid choice: 'rpg'" in output


def test_our_commands_work_without_the_hook(run: Run, tmp_path: Path) -> None:
    run(
        *("-m", "sb3_rpg.train", "--algo", "rpg", "--env", "RPGMaze-v0", "-n", "60", "--eval-freq", "-1"),
        *("-params", *SMALL_RPG),
        hook=False,
    )
    assert (tmp_path / "logs" / "rpg" / "RPGMaze-v0_1" / "RPGMaze-v0.zip").is_file()
    output = run(
        *("-m", "sb3_rpg.enjoy", "--algo", "rpg", "--env", "RPGMaze-v0", "-f", "logs", "--no-render", "-n", "51"),
        hook=False,
    )
    assert "1 Episodes" in output
