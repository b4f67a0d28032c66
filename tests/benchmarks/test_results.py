"""The format of published results."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.results import MAX_ROWS, Results, read_curve, thin, unpublished, write_curve
from benchmarks.runs import Row, RunFolder, read_json, run_folder
from tests.benchmarks.conftest import bandit_experiment, make_plan, write_finished

ROWS = [Row("return", 0, -1.0), Row("train_return", 100, -3.0), Row("return", 100, 1 / 3)]


def finished_runs(tmp_path: Path, seeds: tuple[int, ...], rows: list[Row] = ROWS) -> list[RunFolder]:
    plan = make_plan(tmp_path, bandit_experiment(), seeds)
    for spec, folder in plan.folders():
        write_finished(folder, spec, rows)
    return [folder for _, folder in plan.folders()]


def test_thinning_keeps_the_ends() -> None:
    rows = [Row("m", step, 0.0) for step in range(1000)]
    kept = thin(rows)
    assert len(kept) == MAX_ROWS == len(set(kept))
    assert (kept[0], kept[-1]) == (rows[0], rows[-1])
    gaps = {b.step - a.step for a, b in itertools.pairwise(kept)}
    assert gaps <= {5, 6}
    assert thin(rows[:MAX_ROWS]) == rows[:MAX_ROWS]


def test_curve_files_are_in_a_stable_order(tmp_path: Path) -> None:
    path = tmp_path / "sac.csv"
    write_curve(path, {2: ROWS, 0: ROWS[::-1]})
    expected = (
        "step,value,seed,metric\n0,-1,0,return\n100,0.333333,0,return\n0,-1,2,return\n100,0.333333,2,return\n"
        "100,-3,0,train_return\n100,-3,2,train_return\n"
    )
    assert path.read_text() == expected
    write_curve(path, read_curve(path))
    assert path.read_text() == expected
    assert [file.name for file in tmp_path.iterdir()] == ["sac.csv"]  # no temporary files left
    assert read_curve(tmp_path / "none.csv") == {}
    path.write_text("step,value\n")
    with pytest.raises(ValueError, match="columns"):
        read_curve(path)


def test_runs_are_added_one_by_one(tmp_path: Path) -> None:
    lock, results = tmp_path / "lock", Results(tmp_path / "results")
    folders = finished_runs(tmp_path, (0, 1, 10))
    for i in (2, 0, 1):
        results.publish([folders[i]], lock)
    all_at_once = Results(tmp_path / "at_once")
    all_at_once.publish(folders, lock)
    for name in ("sac.csv", "manifest.json"):
        assert (tmp_path / "results" / name).read_bytes() == (tmp_path / "at_once" / name).read_bytes()
    manifest = read_json(tmp_path / "results" / "manifest.json")
    assert list(manifest["runs"]["sac"]) == ["0", "1", "10"]
    run = manifest["runs"]["sac"]["10"]
    assert run == {"command": "c", "hours": 0.5, "environment": "environment_1", "settings": run["settings"]}
    assert manifest["settings"][run["settings"]]["algorithm"] == "sac"
    assert manifest["settings"][run["settings"]]["settings"]["batch_size"] == 4
    assert manifest["environments"] == {"environment_1": {"python": "3.11"}}
    assert results.fingerprint_of("sac", 10) == run["settings"] and results.fingerprint_of("sac", 5) is None


def test_visits_are_published_where_maps_are_drawn(tmp_path: Path) -> None:
    (folder,) = finished_runs(tmp_path, (0,))
    folder.visits.write_bytes(b"visits")
    for visits in (True, False):
        results = Results(tmp_path / f"results_{visits}", visits)
        results.publish([folder], tmp_path / "lock")
        assert (results.folder / "visits_sac_0.npz").is_file() == visits


def test_another_environment_is_told_apart_and_an_unused_one_dropped(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    (folder, other) = finished_runs(tmp_path, (0, 1))
    results.publish([folder, other], tmp_path / "lock")
    for replaced, names in ((other, {"environment_1", "environment_2"}), (folder, {"environment_2"})):
        write_finished(replaced, replaced.read_spec()[0], ROWS, environment={"python": "3.13"})
        results.publish([replaced], tmp_path / "lock")
        assert set(results.manifest["environments"]) == names


def test_seeds_for_tuning_are_refused_beside_others(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    results.publish(finished_runs(tmp_path, (0,)), tmp_path / "lock")
    with pytest.raises(ValueError, match="mixes seeds for tuning"):
        results.publish(finished_runs(tmp_path, (1000,)), tmp_path / "lock")


def test_finished_runs_that_nobody_published_are_found(tmp_path: Path) -> None:
    folders = finished_runs(tmp_path, (0, 1))
    runs = [(folder.read_spec()[0], folder) for folder in folders]
    results = Results(tmp_path / "results")
    results.publish(folders[:1], tmp_path / "lock")
    assert unpublished(results, runs) == folders[1:]
    # What lies here of settings of before is published where nothing is, but replaces nothing
    today = [(replace(spec, settings={"gamma": 0.5}), folder) for spec, folder in runs]
    assert unpublished(results, today) == folders[1:]
    write_finished(folders[0], today[0][0], ROWS)
    assert unpublished(results, today) == folders
    assert unpublished(results, runs) == folders[1:]


def test_a_run_is_described_by_its_folder(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, bandit_experiment(), (0, 1))
    first, second = plan.specs
    folder = run_folder(plan.work, first)
    folder.write_spec(first, "the command")
    assert folder.read_spec() == (first, "the command")
    assert first.fingerprint() == second.fingerprint()
    longer = make_plan(tmp_path, bandit_experiment(budget=300)).specs[0]
    assert first.fingerprint() != longer.fingerprint()
    folder.write_rows(ROWS)
    assert folder.read_rows() == ROWS
