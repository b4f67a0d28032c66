"""What is left to do, and what happens when settings change in the meantime."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.grid import ON_CHANGE, Plan, reconcile
from benchmarks.results import Results
from benchmarks.runs import Row, RunSpec, locked, run_folder
from tests.benchmarks.conftest import TINY_SAC, bandit_experiment, make_plan, maze_experiment, posix, write_finished

ROWS = [Row("mean_reward", 0, 0.0)]


def names(specs: tuple[RunSpec, ...]) -> list[str]:
    return [spec.name for spec in specs]


def changed_plan(tmp_path: Path, seeds: tuple[int, ...] = (0,)) -> Plan:
    return make_plan(tmp_path, bandit_experiment(overrides={**TINY_SAC, "gamma": 0.5}), seeds)


def begin(plan: Plan) -> None:
    """Leave a checkpoint of each run."""
    for spec, folder in plan.folders():
        folder.write_spec(spec, plan.command)
        (folder.checkpoints / "000000000100").mkdir(parents=True)


def test_seeds_come_one_after_the_other(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, maze_experiment(), (0, 1))
    assert names(plan.specs) == ["rpg/seed 0", "random_uniform/seed 0", "rpg/seed 1", "random_uniform/seed 1"]
    assert [spec.settings for spec in plan.specs if spec.base == "random_uniform"] == [{}, {}]
    assert names(make_plan(tmp_path, maze_experiment(), (3,), ["rpg"]).specs) == ["rpg/seed 3"]


def test_what_another_experiment_trains_is_not_to_do(tmp_path: Path) -> None:
    experiment = replace(maze_experiment(), shared={"rpg": "maze"})
    assert names(make_plan(tmp_path, experiment, (0, 1)).specs) == ["random_uniform/seed 0", "random_uniform/seed 1"]
    assert make_plan(tmp_path, experiment, (0,), ["rpg"]).specs == ()
    assert names(make_plan(tmp_path, experiment.with_budget(100), (0,), ["rpg"]).specs) == ["rpg/seed 0"]


def test_finished_runs_are_not_to_do(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, bandit_experiment(), (0, 1, 2))
    (spec, folder), *_ = plan.folders()
    write_finished(folder, spec, ROWS)
    assert [spec.seed for spec, _ in reconcile(plan, "error")] == [1, 2]
    # Nor are those whose results came with the repository, without their work folder
    Results(plan.results).publish([folder], tmp_path / "lock")
    shutil.rmtree(plan.work)
    assert [spec.seed for spec, _ in reconcile(plan, "error")] == [1, 2]


def test_only_planned_runs_take_the_settings_of_today(tmp_path: Path) -> None:
    (spec, folder), *_ = make_plan(tmp_path, bandit_experiment()).folders()
    folder.write_spec(spec, "a worker that was killed before its first checkpoint")
    plan = changed_plan(tmp_path)
    assert [spec for spec, _ in reconcile(plan, "error")] == list(plan.specs)


def test_results_of_today_stand_whatever_lies_beside_them(tmp_path: Path) -> None:
    (spec, folder), *_ = make_plan(tmp_path, bandit_experiment()).folders()
    write_finished(folder, spec, ROWS)
    plan = changed_plan(tmp_path)
    elsewhere = run_folder(tmp_path / "elsewhere", spec)
    write_finished(elsewhere, plan.specs[0], ROWS)
    Results(plan.results).publish([elsewhere], tmp_path / "lock")
    for on_change in ON_CHANGE:
        assert reconcile(plan, on_change) == []
    assert folder.is_finished()


def test_a_refused_command_changes_nothing(tmp_path: Path) -> None:
    former = make_plan(tmp_path, bandit_experiment(), (0, 1, 2))
    (waiting, waiting_folder), (_, begun), (finished, finished_folder) = former.folders()
    waiting_folder.write_spec(waiting, former.command)
    begin(make_plan(tmp_path, bandit_experiment(), (1,)))
    write_finished(finished_folder, finished, ROWS)
    with pytest.raises(ValueError, match="other settings"):
        reconcile(changed_plan(tmp_path, (0, 1, 2)), "error", again=True)
    assert waiting_folder.read_spec()[0] == waiting and begun.checkpoints.is_dir() and finished_folder.is_finished()


def test_changed_settings_are_reported(tmp_path: Path) -> None:
    begin(make_plan(tmp_path, bandit_experiment()))
    with pytest.raises(ValueError, match=r"(?s)sac/seed 0: settings.gamma None -> 0.5\n.*--on-change restart"):
        reconcile(changed_plan(tmp_path), "error")


def test_changed_runs_can_be_kept(tmp_path: Path) -> None:
    former = make_plan(tmp_path, bandit_experiment(), (0, 1))
    begin(former)
    (spec, folder), _ = former.folders()
    write_finished(folder, spec, ROWS)
    # The finished one stays, the other one goes on with the settings that it was begun with
    assert [spec for spec, _ in reconcile(changed_plan(tmp_path, (0, 1)), "keep")] == [former.specs[1]]


def test_changed_runs_can_be_restarted(tmp_path: Path) -> None:
    former = make_plan(tmp_path, bandit_experiment(), (0, 1))
    begin(former)
    plan = changed_plan(tmp_path, (0, 1))
    todo = reconcile(plan, "restart")
    assert [spec for spec, _ in todo] == list(plan.specs)
    assert not any(folder.checkpoints.exists() for _, folder in todo)


def test_published_runs_of_other_settings_are_reported(tmp_path: Path) -> None:
    former = make_plan(tmp_path, bandit_experiment())
    (spec, folder), *_ = former.folders()
    write_finished(folder, spec, ROWS)
    Results(former.results).publish([folder], tmp_path / "lock")
    shutil.rmtree(former.work)
    plan = changed_plan(tmp_path)
    with pytest.raises(ValueError, match="gamma"):
        reconcile(plan, "error")
    assert reconcile(plan, "keep") == []
    assert [spec for spec, _ in reconcile(plan, "restart")] == list(plan.specs)
    # Begun anew: no longer a change
    begin(plan)
    assert [spec for spec, _ in reconcile(plan, "error")] == list(plan.specs)


def test_finished_runs_can_be_made_again_and_unfinished_ones_go_on(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, bandit_experiment(), (0, 1, 2))
    (first, finished), (second, pulled), (third, begun) = plan.folders()
    for spec, folder in ((first, finished), (second, pulled)):
        write_finished(folder, spec, ROWS)
    Results(plan.results).publish([finished, pulled], tmp_path / "lock")
    shutil.rmtree(pulled.path)
    checkpoint = begun.checkpoints / "000000000100"
    checkpoint.mkdir(parents=True)
    begun.write_spec(third, plan.command)
    assert [spec.seed for spec, _ in reconcile(plan, "error", again=True)] == [0, 1, 2]
    assert not finished.is_finished() and checkpoint.is_dir()
    assert Results(plan.results).fingerprint_of("sac", 0) == first.fingerprint()  # until the new ones are there
    # Interrupted: the same without ``again`` goes on with all of them, and leaves what has finished since
    assert [spec.seed for spec, _ in reconcile(plan, "error")] == [0, 1, 2]
    write_finished(finished, first, ROWS)
    assert [spec.seed for spec, _ in reconcile(plan, "error")] == [1, 2]


@posix
def test_what_another_command_executes_is_not_discarded(tmp_path: Path) -> None:
    begin(make_plan(tmp_path, bandit_experiment()))
    plan = changed_plan(tmp_path)
    folder = plan.folders()[0][1]
    with locked(folder.lock), pytest.raises(ValueError, match="run='sac/seed 0' is being executed by another command"):
        reconcile(plan, "restart")
    assert folder.read_spec()[0] != plan.specs[0] and folder.checkpoints.is_dir()
    assert [spec for spec, _ in reconcile(plan, "restart")] == list(plan.specs)


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path), pytest.raises(BlockingIOError), locked(path, wait=False):
        pass
    with locked(path, wait=False):
        pass
