"""Runs in this process: what they record, and that an interrupted one ends as if it had not been interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from benchmarks.checkpoint import resume
from benchmarks.measures import BanditMeasure
from benchmarks.recorder import Recorder
from benchmarks.runs import CLOCKS, Row, RunFolder, locked, read_json
from benchmarks.schema import Algorithm, Experiment, Metric, Task
from benchmarks.settings import Workbench
from benchmarks.worker import BUSY, FINISHED, STOPPED, execute
from sb3_rpg.checkpoints import latest_checkpoint
from sb3_rpg.envs import random_coverage
from tests.benchmarks.conftest import ALWAYS, NEVER, TINY_RPG, TINY_SAC, bandit_experiment, make_plan, maze_experiment


def prepare(tmp_path: Path, experiment: Experiment, label: str) -> RunFolder:
    plan = make_plan(tmp_path, experiment, labels=[label])
    (spec, folder), *_ = plan.folders()
    folder.write_spec(spec, plan.command)
    return folder


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> Callable[[], None]:
    """Ask for a stop from the given step on, as a signal would; returns what ends that."""
    on_step: Callable[[Any], bool] = Recorder._on_step

    def stopping(self: Recorder) -> bool:
        if self.num_timesteps >= step:
            self.stop.signal()
        return on_step(self)

    monkeypatch.setattr(Recorder, "_on_step", stopping)
    return lambda: monkeypatch.setattr(Recorder, "_on_step", on_step)


def values(folder: RunFolder, metric: str) -> dict[int, float]:
    return {row.step: row.value for row in folder.read_rows() if row.metric == metric}


def test_an_interrupted_maze_run_keeps_its_coverage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepare(tmp_path, maze_experiment(), "rpg")
    go_on = stop_at(monkeypatch, 150)
    assert execute(folder.path, NEVER) == STOPPED
    assert not folder.is_finished()
    checkpoint = latest_checkpoint(folder.checkpoints)
    assert checkpoint is not None and int(checkpoint.name) == 150
    spec, _ = folder.read_spec()
    bench = Workbench(spec.base, spec.task, spec.settings, spec.budget, spec.seed, "cpu")
    env: Any = bench.make_env()
    model, state = resume(checkpoint, bench.model_class(), env, spec.seed, "cpu")
    assert model.num_timesteps == 150 and [row.step for row in state.rows if row.metric == "coverage"] == [0, 100]
    assert model.replay_buffer.size() == 30  # type: ignore[attr-defined]
    # Not the start cell alone: the replay buffer and the environment agree on where training has been
    cells_before = env.visited.copy()
    assert cells_before.sum() > 1

    go_on()
    assert execute(folder.path, NEVER) == FINISHED
    coverage = values(folder, "coverage")
    assert list(coverage) == [0, 100, 200, 300]
    assert coverage[0] == 0.01 and list(coverage.values()) == sorted(coverage.values())
    assert coverage[200] >= cells_before.mean()
    record = read_json(folder.finished)
    assert record["resumes"] == 1 and record["fingerprint"] == spec.fingerprint()
    assert record["hours"] >= 0 and record["environment"]["torch"] and record["environment"]["processor"]
    assert not folder.checkpoints.exists() and folder.model.is_file()
    assert execute(folder.path, NEVER) == FINISHED  # at once
    assert read_json(folder.finished) == record


#: off-policy, with a callback and a model in its replay buffer, on-policy with normalisation
OVERRIDES: dict[str, dict[str, Any]] = {
    "sac": TINY_SAC,
    "sac_rnd": {
        **TINY_SAC,
        "replay_buffer_kwargs": "dict(intrinsic_reward='rnd', intrinsic_reward_kwargs=dict(width=8))",
        "callback": [{"sb3_rpg.intrinsic.IntrinsicRewardCallback": {"batch_size": 16}}],
    },
    "ppo": {"n_envs": 2, "n_steps": 16, "batch_size": 16, "normalize": True, "policy_kwargs": "dict(net_arch=[8])"},
}


def test_the_budget_is_measured_where_it_is_reached_also_within_a_rollout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[tuple[str, int, int]] = []
    record = Recorder._record

    def watched(self: Recorder, measure: Any, step: int) -> None:
        measured.append((measure.metric.name, step, self.num_timesteps))
        record(self, measure, step)

    monkeypatch.setattr(Recorder, "_record", watched)
    # Rollouts of 96 steps: the budget of 200 is within the third, one of 192 would be the end of the second
    for budget, expected in ((200, [(0, 0), (100, 100), (200, 200)]), (192, [(0, 0), (100, 100), (192, 192)])):
        measured.clear()
        ppo = {**OVERRIDES["ppo"], "n_steps": 48}
        folder = prepare(tmp_path / str(budget), bandit_experiment(budget, "ppo", ppo), "ppo")
        assert execute(folder.path, NEVER) == FINISHED
        assert [(step, at) for name, step, at in measured if name == "return"] == expected
        assert [row.step for row in folder.read_rows() if row.metric == "return"] == [step for step, _ in expected]


@pytest.mark.parametrize("base", OVERRIDES)
def test_interrupted_runs_have_the_rows_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str) -> None:
    experiment = bandit_experiment(base=base, overrides=OVERRIDES[base])
    whole, parts = (prepare(tmp_path / name, experiment, base) for name in ("whole", "parts"))
    assert execute(whole.path, NEVER) == FINISHED
    for step in (40, 120):
        go_on = stop_at(monkeypatch, step)
        assert execute(parts.path, NEVER) == STOPPED
        go_on()
    assert execute(parts.path, NEVER) == FINISHED
    keys = [(row.metric, row.step) for row in whole.read_rows()]
    for folder in (whole, parts):
        for clock in CLOCKS:
            assert list(values(folder, clock)) == [0, 100, 200]
            seconds = list(values(folder, clock).values())
            assert 0 <= seconds[0] < seconds[1] < seconds[2]
        record = read_json(folder.finished)
        assert 0 < record["training_hours"] <= record["hours"] + 1e-4
        assert 0 < record["training_cpu_hours"] <= record["cpu_hours"] + 1e-4
        assert 50 < record["peak_memory_mb"] < 50_000 and record["parameters"] > 20
        assert record.get("precision") == ("float32" if base == "rpg" else None)
    assert [(row.metric, row.step) for row in parts.read_rows()] == keys
    assert {metric for metric, _ in keys} == {
        *("mean_reward", "mean_reward_deterministic", "return", "success", "train_return", "train_success"),
        *CLOCKS,
    }
    assert [step for metric, step in keys if metric == "mean_reward"] == [0, 100, 200]
    assert read_json(parts.finished)["resumes"] == 2


def test_the_clocks_leave_measurements_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = BanditMeasure.measure

    def slow(self: BanditMeasure, model: Any, seed: int) -> dict[str, float]:
        end = time.process_time() + 1.0
        while time.process_time() < end:
            pass
        return measure(self, model, seed)

    monkeypatch.setattr(BanditMeasure, "measure", slow)
    folder = prepare(tmp_path, bandit_experiment(), "sac")
    assert execute(folder.path, NEVER) == FINISHED
    record = read_json(folder.finished)
    assert 3600 * (record["cpu_hours"] - record["training_cpu_hours"]) > 2.9  # three measurements
    assert 3600 * (record["hours"] - record["training_hours"]) > 2.9


def test_a_batched_task_with_rewards_records_its_training_episodes(tmp_path: Path) -> None:
    sparse = replace(
        maze_experiment(), task=Task("RPGMazeSparse-v0", "maze"), metrics=(Metric("success", 300, 1), Metric("coverage", 300))
    )
    push = replace(maze_experiment(budget=600), task=Task("RPGPointPush-v0", "push"), metrics=(Metric("success", 600, 1),))
    for experiment, returned in ((sparse, 0.0), (push, None)):
        # No ramps: they are the task's own
        tiny = {**TINY_RPG, "latent": "gaussian", "beta": 0.01, "latent_ent_coef": 1.0}
        experiment = replace(experiment, algorithms=(Algorithm("rpg", "rpg", tiny),), baseline="rpg")
        folder = prepare(tmp_path / experiment.task.vec_env, experiment, "rpg")
        assert execute(folder.path, NEVER) == FINISHED
        assert values(folder, "success") == {0: 0.0, experiment.budget: 0.0}
        assert values(folder, "train_success") == {experiment.budget: 0.0}
        train_return = values(folder, "train_return")[experiment.budget]
        assert train_return == returned if returned is not None else -230 < train_return < -80
        with np.load(folder.visits) as arrays:
            assert arrays["positions"].shape == (experiment.budget, 2)
            assert arrays["latents"].shape == (len(np.unique(arrays["episodes"])), 3)
    assert max(values(RunFolder(tmp_path / "maze" / "work" / "rpg" / "seed_0"), "coverage").values()) > 0.01


def test_a_batched_task_is_evaluated_with_the_statistics_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def note(model: Any, env: VecEnv, **kwargs: Any) -> Any:
        seen.append((model.get_vec_normalize_env(), unwrap_vec_normalize(env)))
        return evaluate_policy(model, env, **kwargs)

    monkeypatch.setattr("benchmarks.measures.evaluate_policy", note)
    metrics = (Metric("success", 192, 1),)  # six rollouts
    experiment = replace(maze_experiment(budget=192), task=Task("RPGPointPush-v0", "push"), metrics=metrics)
    experiment = replace(experiment, algorithms=(Algorithm("ppo", "ppo", OVERRIDES["ppo"]),), baseline="ppo")
    folder = prepare(tmp_path, experiment, "ppo")
    assert execute(folder.path, NEVER) == FINISHED
    assert len(values(folder, "success")) == len(seen) == 2
    training, evaluation = seen[-1]
    assert training is not evaluation and training.training and not evaluation.training
    assert training.obs_rms.count > 180
    np.testing.assert_array_equal(evaluation.obs_rms.mean, training.obs_rms.mean)
    np.testing.assert_array_equal(evaluation.obs_rms.var, training.obs_rms.var)


def test_random_numbers_go_on_after_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepare(tmp_path, maze_experiment(), "rpg")
    stop_at(monkeypatch, 150)
    assert execute(folder.path, NEVER) == STOPPED
    after_stopping = np.random.rand(), float(th.rand(()))
    spec, _ = folder.read_spec()
    bench = Workbench(spec.base, spec.task, spec.settings, spec.budget, spec.seed, "cpu")
    path = latest_checkpoint(folder.checkpoints)
    assert path is not None
    resume(path, bench.model_class(), bench.make_env(), spec.seed, "cpu")
    assert (np.random.rand(), float(th.rand(()))) == after_stopping


def test_checkpoints_leave_no_trace_in_the_run(tmp_path: Path) -> None:
    experiment = bandit_experiment(base="rpg", overrides={**TINY_RPG, "latent_dim": 2})
    often, never = (prepare(tmp_path / name, experiment, "rpg") for name in ("often", "never"))
    assert execute(often.path, ALWAYS) == execute(never.path, NEVER) == FINISHED
    often_rows, never_rows = ([row for row in run.read_rows() if row.metric not in CLOCKS] for run in (often, never))
    assert often_rows == never_rows


def test_the_random_baseline_is_exact(tmp_path: Path) -> None:
    folder = prepare(tmp_path, maze_experiment(budget=250), "random_uniform")
    assert execute(folder.path, NEVER) == FINISHED
    steps, coverage = random_coverage("uniform", 250, 0)
    expected = [Row("coverage", step, float(coverage[steps == step][0])) for step in (0, 100, 200, 250)]
    assert folder.read_rows() == expected


def test_a_run_is_executed_once_at_a_time(tmp_path: Path) -> None:
    folder = prepare(tmp_path, maze_experiment(), "random_uniform")
    with locked(folder.lock):
        assert execute(folder.path, NEVER) == BUSY
    assert not folder.is_finished()


def test_visits_are_saved_by_whole_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepare(tmp_path, maze_experiment(budget=600), "rpg")
    go_on = stop_at(monkeypatch, 150)  # within an episode: at 30 steps of 50
    execute(folder.path, NEVER)
    go_on()
    assert execute(folder.path, NEVER) == FINISHED
    with np.load(folder.visits) as arrays:
        lengths = np.bincount(arrays["episodes"])
        assert arrays["positions"].shape == (600, 2) and np.abs(arrays["positions"]).max() <= 5
        assert arrays["latents"].shape == (len(lengths), 3)
    assert sorted(lengths.tolist()) == [20] * 5 + [50] * 10  # the maze goes on where it was
    assert folder.visits.stat().st_size < 300_000


def test_visits_are_those_of_the_whole_training(tmp_path: Path) -> None:
    experiment = maze_experiment(budget=300)
    rpg = replace(experiment.algorithms[0], overrides={**experiment.algorithms[0].overrides, "buffer_size": 200})
    folder = prepare(tmp_path, replace(experiment, algorithms=(rpg,), baseline=rpg.label), rpg.label)
    assert execute(folder.path, NEVER) == FINISHED
    assert not folder.visits.exists()  # the buffer has forgotten the first of them


def test_errors_reach_the_log_and_leave_the_run_unfinished(tmp_path: Path) -> None:
    folder = prepare(tmp_path, bandit_experiment(overrides={"gamma": "no number"}), "sac")
    with pytest.raises(TypeError):
        execute(folder.path, NEVER)
    assert not folder.is_finished()
