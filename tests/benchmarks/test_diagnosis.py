"""The runs of docs/diagnosis.md: their curves on disk, their figure, and the task they are made on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.diagnosis import FOLDER, THRESHOLDS, Watched, draw, main, read_rows, run_case, write_rows
from benchmarks.diagnosis_cases import CASES, Case, Fork
from sb3_rpg.diagnostics import FAILURES


def test_rows_survive_the_disk_and_are_drawn(tmp_path: Path) -> None:
    rows = [("healthy", 40, 1.5, 0), ("healthy", 80, 0.25, 0), ("failing", 40, 0.125, 0), ("failing", 80, 1e-3, 1)]
    for case in CASES:
        write_rows(tmp_path / f"{case.name}.csv", rows)
    assert read_rows(tmp_path / "model_bias.csv") == rows
    draw(tmp_path, tmp_path / "images" / "picture.png")
    assert (tmp_path / "images" / "picture.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "model_bias.csv").unlink()
    with pytest.raises(ValueError, match=r"lacks model_bias; run `python -m benchmarks.diagnosis` first"):
        draw(tmp_path, tmp_path / "picture.png")


def test_a_healthy_run_is_made_once_and_the_warning_marks_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, bool]] = []

    def watch(case: Case, healthy: bool, seed: int) -> Watched:
        made.append((case.name, healthy))
        history = [(step, {case.measured: float(step), CASES[0].measured: 0.0, "model_error": 1.0}) for step in (40, 80, 120)]
        return Watched(history, [] if healthy else [f"{case.name}: all is lost (step 80; see docs/diagnosis.md)"])

    monkeypatch.setattr("benchmarks.diagnosis.watch", watch)
    alike = [case for case in CASES if case.name in ("mode_collapse", "model_bias")]
    runs: dict[str, Watched] = {}
    rows = [run_case(case, runs) for case in alike]
    assert made == [("mode_collapse", True), ("mode_collapse", False), ("model_bias", False)]
    assert [row[3] for row in rows[0]] == [0, 0, 0, 0, 1, 1]
    assert rows[1][0] == ("healthy", 40, 1.0, 0)


def test_unknown_failures_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["mode_colapse"])
    assert "unknown failures: mode_colapse; known: mode_collapse, over_exploration" in capsys.readouterr().err


def test_every_failure_has_a_case_a_threshold_and_a_committed_run_that_was_warned_of() -> None:
    kinds = {failure.kind for failure in FAILURES}
    assert kinds == {case.name for case in CASES} == set(THRESHOLDS) == {path.stem for path in FOLDER.glob("*.csv")}
    for kind in kinds:
        rows = read_rows(FOLDER / f"{kind}.csv")
        assert not any(warned for run, *_, warned in rows if run == "healthy"), kind
        assert any(warned for run, *_, warned in rows if run == "failing"), kind


def test_the_task_has_two_equal_modes() -> None:
    returns = []
    for direction in (1.0, -1.0, 0.0):
        env, total = Fork(), 0.0
        env.reset(seed=0)
        for step in range(1, 11):
            _, reward, terminated, truncated, info = env.step(np.array([direction]))
            total += reward
            assert not terminated and truncated == (step == 10)
        assert info["position"] == [direction]
        returns.append(total)
    assert returns == pytest.approx([8.0, 8.0, 0.0])
