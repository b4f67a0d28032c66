"""The benchmark of speed: what it counts and how it compares; the numbers themselves are the machine's."""

from __future__ import annotations

import time

import numpy as np
import pytest

from benchmarks import speed
from benchmarks.runs import read_json
from benchmarks.speed_cases import count_flops, filler
from benchmarks.speed_profile import BOOKKEEPING, KINDS, kind_of
from benchmarks.timing import Timing, time_in_turn
from sb3_rpg import RPG


def test_pieces_take_turns() -> None:
    order: list[str] = []

    def piece(name: str, seconds: float) -> None:
        order.append(name)
        time.sleep(seconds)

    timings = time_in_turn({"a": lambda: piece("a", 0.01), "b": lambda: piece("b", 0.03)}, "a", repeats=3, warmup=1)
    assert order == ["a", "b"] * 4
    assert len(timings["b"].seconds) == 3 and timings["a"].ratio() == 1.0 and timings["b"].ratio() > 1.0


def test_ratios_are_those_of_each_repeat() -> None:
    timing = Timing(np.array([2.0, 30.0, 4.0]), np.array([1.0, 10.0, 1.0]))
    assert timing.ratio() == 3.0 and timing.median == 4.0 and timing.ratio(1.0) == 4.0


def test_products_of_an_update_are_counted_as_by_hand() -> None:
    arguments = {"precision": "fp32", "batch_size": 32, "policy_kwargs": {"net_arch": [16], "hidden_dim": 16, "state_dim": 8}}
    small = count_flops(filler(True)(RPG, intrinsic_reward=None, **arguments))
    twice = count_flops(filler(True)(RPG, intrinsic_reward=None, **{**arguments, "batch_size": 64}))
    assert twice == pytest.approx(2 * small, rel=0.01)
    bonus = count_flops(filler(True)(RPG, intrinsic_batch_size=32, **arguments)) - small
    # Two networks over 32 rows for the reward, 32 for the update; its gradients: two products more but for the input's
    rnd = 28 * 512 + 2 * 512 * 512
    assert bonus == pytest.approx(2 * 32 * (4 * rnd + 2 * rnd - 28 * 512), rel=0.01)


def test_every_operation_has_a_kind() -> None:
    assert kind_of("mkldnn::_linear_pointwise") == kind_of("aten::mm") == "matrix products"
    assert kind_of("aten::tanh") == list(KINDS)[-1] and kind_of("_GRUStepBackward") == BOOKKEEPING


@pytest.mark.parametrize("section", [name for name in speed.ON_CPU if name != "learn"])
def test_smoke(section: str, capsys: pytest.CaptureFixture[str]) -> None:
    speed.main(["--smoke", "--sections", section])
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) > 3 and all(line.startswith(section) for line in lines[:-1]) and "torch" in lines[-1]


@pytest.mark.slow
def test_smoke_of_learning(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mujoco")
    speed.main(["--smoke", "--sections", "learn"])
    assert capsys.readouterr().out.count("steps/s") == 6


def test_measuring_one_section_keeps_the_others(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(speed, "RESULTS", tmp_path)
    speed.write([speed.Row("update", "a", 1.0, "ms"), speed.Row("learn", "b", 2.0, "ms")], {"commit": "1"}, "threads_1")
    speed.write([speed.Row("update", "c", 3.0, "ms")], {"commit": "2"}, "threads_1")
    text = (tmp_path / "threads_1.csv").read_text()
    assert "learn,b" in text and "update,c" in text and "update,a" not in text
    assert read_json(tmp_path / "threads_1.json") == {"update": {"commit": "2"}, "learn": {"commit": "1"}}
