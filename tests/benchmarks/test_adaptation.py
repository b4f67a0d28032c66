"""The benchmark of adaptation on models that are as small as they can be."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import VecEnv

from benchmarks import adaptation
from benchmarks.adaptation import EXITS, MAZE, Protocol, find_candidates, finished_runs, load_model, measure, measure_missing
from benchmarks.adaptation_report import make_table, values_by_seed
from benchmarks.experiments import MAZE as MAZE_TASK
from benchmarks.experiments import Metric
from benchmarks.runs import RunFolder, RunSpec, read_json, write_json
from sb3_rpg.envs import MazeVecEnv
from tests.conftest import small_rpg

pytest.importorskip("sklearn")
TINY = Protocol(trials=3, episodes=2, latents=4)


def write_run(work: Path, label: str, base: str, seed: int, **settings: object) -> RunFolder:
    """A finished run with a model that has learned nothing."""
    folder = RunFolder(work / label / f"seed_{seed}")
    spec = RunSpec("tiny", label, base, MAZE_TASK, 40, (Metric("coverage", 20),), dict(settings), seed)
    folder.write_spec(spec, "python -m benchmarks.run tiny")
    write_json(folder.finished, {"fingerprint": spec.fingerprint()})
    env = MazeVecEnv(1)
    if base == "sac":
        SAC("MlpPolicy", env, policy_kwargs={"net_arch": [8]}, buffer_size=10, seed=seed, device="cpu").save(folder.model)
    else:
        small_rpg(env, latent=settings.get("latent", "gaussian"), seed=seed).save(folder.model)
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    write_run(folder, "rpg", "rpg", 0)
    write_run(folder, "sac", "sac", 0)
    write_run(folder, "none", "rpg", 0, latent="none")
    return folder


def test_a_small_run_writes_rows_and_figure_and_is_not_repeated(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(adaptation.ROBUSTNESS, "maze", MAZE.__class__("success", "position", MAZE.unchanged, MAZE.changes[:2]))
    arguments = ["maze", "--work", str(work), "--output", str(tmp_path), "--trials", "3", "--episodes", "2", "--latents", "4"]
    assert adaptation.main(arguments) == 0
    path = tmp_path / "maze.csv"
    first = path.read_text()
    rows = list(csv.DictReader(first.splitlines()))
    assert [(row["label"], row["change"]) for row in rows] == [
        (label, change.name) for label in ("none", "rpg", "sac") for change in MAZE.changes[:2]
    ]
    assert all(1 <= int(row["trials"]) <= 3 for row in rows)
    assert all(0.0 <= float(row[name]) <= 1.0 for row in rows for name in ("unadapted", "best_trial", "adapted"))
    assert (tmp_path / "adaptation_maze.png").stat().st_size > 10_000
    assert (tmp_path / "maze.md").read_text() in capsys.readouterr().out
    capsys.readouterr()
    origins = read_json(tmp_path / "maze.json")
    assert set(origins) == {f"{label}/seed 0, 3-2-4" for label in ("none", "rpg", "sac")}
    assert {"torch", "commit", "processor"} <= origins["rpg/seed 0, 3-2-4"].keys()
    # A mean over one of two changes is none
    path.write_text("\n".join(first.splitlines()[:4]) + "\n")
    assert adaptation.main([*arguments, "--draw"]) == 0
    assert "rpg/seed 0 is left out: not measured yet on" in capsys.readouterr().out
    assert [line.split(" |")[0] for line in (tmp_path / "maze.md").read_text().splitlines()[2:]] == ["| none"]
    # Interrupted after the fourth row: only what is missing is measured, and comes out as before
    path.write_text("\n".join(first.splitlines()[:5]) + "\n")
    assert adaptation.main(arguments) == 0
    assert capsys.readouterr().out.count("->") == 2
    assert path.read_text() == first
    # Drawn again without any model
    table, models = (tmp_path / "maze.md").read_text(), work.rename(tmp_path / "away")
    assert adaptation.main([*arguments, "--draw"]) == 0
    assert (tmp_path / "maze.md").read_text() == table and path.read_text() == first
    models.rename(work)
    # Another protocol is another measurement
    assert adaptation.main([*arguments, "--episodes", "1"]) == 0
    assert capsys.readouterr().out.count("->") == 6
    assert adaptation.main([*arguments, "--algos", "rpg", "--again"]) == 0
    assert capsys.readouterr().out.count("->") == 2
    # A run that was made anew replaces what was measured of it, and nothing else
    write_run(work, "sac", "sac", 0, gamma=0.5)
    assert adaptation.main(arguments) == 0
    assert capsys.readouterr().out.count("->") == 2
    after = list(csv.DictReader(path.read_text().splitlines()))
    assert len(after) == 12 and len({row["settings"] for row in after if row["label"] == "sac"}) == 2


def test_rpg_finds_the_way_that_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a policy that walks where z points to, ten trials are enough; whatever the one it would have taken."""
    model = small_rpg(MazeVecEnv(1), latent_dim=2)

    def predict(obs: object, state: object = None, episode_start: object = None, deterministic: bool = False) -> object:
        z = state[0] if isinstance(state, tuple) else state
        z = np.atleast_2d(np.array([0.0, 1.0]) if z is None else np.asarray(z))
        directions = np.where(np.abs(z) >= np.abs(z).max(axis=1, keepdims=True), np.sign(z), 0.0)
        return np.broadcast_to(directions, (len(np.asarray(obs)), 2)).astype(np.float32), (z,)

    monkeypatch.setattr(model, "predict", predict)
    # Without noise at the start: straight ahead is then through the gaps
    straight = [adaptation.Change(c.name, partial(_still, c.make_env)) for c in MAZE.changes]
    robustness = adaptation.Robustness("success", "position", partial(_still, MAZE.unchanged), tuple(straight))
    protocol = Protocol(episodes=2, latents=32)
    candidates = find_candidates(model, robustness, protocol, seed=0)
    for change in straight:
        values = measure(model, robustness, change, protocol, 0, candidates)
        assert values["adapted"] == values["best_trial"] == 1.0 and values["trials"] <= 10
        assert values["unadapted"] == float(change.name == "only up open")


def _still(make_env: Callable[[int], VecEnv], n_envs: int) -> VecEnv:
    env = make_env(n_envs)
    env.set_attr("start_noise", 0.0)
    return env


def test_changes_leave_one_way_open() -> None:
    for change, way in zip(MAZE.changes, EXITS, strict=True):
        env = change.make_env(1)
        assert isinstance(env, MazeVecEnv)
        assert change.name == f"only {way} open" and set(env.core.blocked) == set(EXITS.values()) - {EXITS[way]}


def test_a_measurement_depends_on_its_seed_alone(work: Path) -> None:
    folder = finished_runs(work)[1]
    results = []
    for _ in range(2):
        np.random.uniform(size=3)
        model = load_model(folder, folder.read_spec()[0])
        candidates = find_candidates(model, MAZE, TINY, 4)
        assert candidates is not None and candidates.shape == (TINY.latents, 3)
        results.append((measure(model, MAZE, MAZE.changes[0], TINY, 5, candidates), candidates.tolist()))
    assert results[0] == results[1]


def test_agents_without_z_have_no_candidates(work: Path) -> None:
    folders = {folder.read_spec()[0].label: folder for folder in finished_runs(work)}
    for label in ("none", "sac"):
        assert find_candidates(load_model(folders[label], folders[label].read_spec()[0]), MAZE, TINY, 0) is None


def test_values_of_the_figure() -> None:
    rows = [
        {"label": "rpg", "seed": str(seed), "change": change, "adapted": str(value)}
        for seed, change, value in [(0, "a", 1.0), (0, "b", 0.0), (10, "a", 0.5), (10, "b", 0.5), (2, "a", 0.0), (2, "b", 0.0)]
    ]
    assert values_by_seed(rows, "rpg", None, "adapted").tolist() == [0.5, 0.0, 0.5]  # seeds 0, 2, 10
    assert values_by_seed(rows, "rpg", "a", "adapted").tolist() == [1.0, 0.0, 0.5]


def test_table_takes_the_mean_over_changes_and_then_statistics_over_seeds() -> None:
    values = {"unadapted": "0", "best_trial": "1"}
    rows = [
        {"label": "rpg", "seed": str(seed), "change": change, "adapted": f"{seed / 8 + shift}", **values}
        for seed in range(4)
        for change, shift in (("a", 0.0), ("b", 0.25))
    ]
    rows.append({"label": "sac", "seed": "0", "change": "a", "adapted": "123.4", **values})
    header, _, rpg, sac = make_table(rows, "success rate", 10).splitlines()
    assert header == "| algorithm | success rate without trials | best of 10 trials | after 10 trials | seeds |"
    # Means of the seeds are 0.125, 0.25, 0.375, 0.5; the middle two are taken
    assert rpg.startswith("| rpg | 0.00 (0.00 to 0.00) | 1.00 (1.00 to 1.00) | 0.31 (0.") and rpg.endswith("| 4 |")
    assert sac == "| sac | 0.00 | 1.00 | 123 | 1 |"  # a single seed has no interval


def test_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert adaptation.main(["maze", "--work", str(tmp_path), "--output", str(tmp_path)]) == 2
    assert "holds no finished run with a model: run `python -m benchmarks.run` first" in capsys.readouterr().err
    assert adaptation.main(["maze", "--trials", "0"]) == 2
    assert "trials=0 must be at least 1" in capsys.readouterr().err
    assert adaptation.main(["maze", "--work", str(tmp_path), "--algos", "rpg", "sac"]) == 2
    assert "holds no finished run of rpg, sac with a model" in capsys.readouterr().err
    normalised = write_run(tmp_path / "work", "rpg", "rpg", 0, normalize=True)
    with pytest.raises(ValueError, match="run='rpg/seed 0' was trained with VecNormalize"):
        load_model(normalised, normalised.read_spec()[0])
    (tmp_path / "maze.csv").write_text("other,columns\n1,2\n")
    with pytest.raises(ValueError, match=r"has columns \['other', 'columns'\], expected"):
        measure_missing(MAZE, tmp_path / "work", tmp_path / "maze.csv", TINY)
