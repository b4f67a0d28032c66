"""Alarms: raised when all signs are there for long enough, taken back with hysteresis, silent where nothing can be judged."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sb3_rpg.diagnostics import FAILURES, Detector, Failure

#: what a run that learns looks like
HEALTHY: dict[str, float] = {
    "information": 1.2,
    "information_rise": 0.0,
    "share_extrinsic": 0.6,
    "share_bonus": 0.1,
    "share_posterior": 0.2,
    "exploration_share": 0.33,
    "share_entropy": 0.1,
    "beta": 0.01,
    "model_error": 0.02,
    "model_return_bias": 0.1,
    "bonus_spread": 0.7,
    "value": 3.0,
    "value_bias": 0.5,
    "value_bias_relative": 0.2,
    "ent_coef": 0.05,
    "ent_coef_change": 0.5,
    "entropy_gap": 0.1,
    "return_progress": 0.1,
}
SICK: dict[str, dict[str, float]] = {
    "mode_collapse": {"information": 0.05},
    "over_exploration": {"exploration_share": 0.97},
    "model_bias": {"model_error": 0.9},
    "bonus_exhaustion": {"bonus_spread": 0.01, "share_extrinsic": 0.0},
    "value_overestimation": {"value_bias_relative": 5.0, "value_bias": 15.0},
    "alpha_collapse": {"ent_coef_change": 1e-5, "entropy_gap": 2.0},
    "alpha_explosion": {"ent_coef_change": 500.0, "entropy_gap": -2.0},
}


def detectors(min_updates: int = 0) -> dict[str, Detector]:
    return {failure.kind: Detector(failure, min_updates) for failure in FAILURES}


@pytest.mark.parametrize("kind", SICK)
def test_each_failure_raises_its_own_alarm_and_no_other(kind: str) -> None:
    assert set(SICK) == {failure.kind for failure in FAILURES}
    measured, watching = {**HEALTHY, **SICK[kind]}, detectors()
    raised = [name for _ in range(10) for name, detector in watching.items() if detector.update(measured, 5000)]
    assert raised == [kind]  # once, not at each measurement
    assert watching[kind].explain(measured).startswith(f"{kind}: ")


def test_a_healthy_run_raises_none() -> None:
    watching = detectors()
    assert not any(detector.update(HEALTHY, 5000) for _ in range(10) for detector in watching.values())


@pytest.mark.parametrize(
    ("kind", "excuse"),
    [
        ("mode_collapse", {"return_progress": 1.0}),  # it is still getting better
        ("mode_collapse", {"information_rise": 0.1}),  # z is coming to be used
        ("mode_collapse", {"posterior_bound_max": 0.1}),  # pi(z|s1) has settled on one z, as it was told to
        ("over_exploration", {"return_progress": 1.0}),
        ("over_exploration", {"share_extrinsic": 0.0}),  # nothing to exploit
        ("over_exploration", {"information": 0.05}),  # modes are not apart: the other failure
        ("bonus_exhaustion", {"share_extrinsic": 0.8}),  # reward has taken its place
        ("alpha_collapse", {"entropy_gap": 0.05}),  # the entropy is what it should be
    ],
)
def test_signs_that_excuse(kind: str, excuse: dict[str, float]) -> None:
    detector, measured = detectors()[kind], {**HEALTHY, **SICK[kind], **excuse}
    assert not any(detector.update(measured, 5000) for _ in range(10))


@pytest.mark.parametrize("kind", SICK)
def test_what_cannot_be_judged_raises_nothing(kind: str) -> None:
    for unknown in ({}, dict.fromkeys(HEALTHY, math.nan)):
        detector = detectors()[kind]
        assert not any(detector.update(unknown, 5000) for _ in range(10))
        # Nor does it take an alarm back
        assert any(detector.update({**HEALTHY, **SICK[kind]}, 5000) for _ in range(10))
        detector.update(unknown, 5000)
        assert detector.active


def severity_is(values: Any) -> Detector:
    return Detector(Failure("made_up", lambda measured: measured["x"], "x is {x}", patience=3), min_updates=100)


def test_patience_grace_and_hysteresis() -> None:
    detector = severity_is(None)

    def feed(*severities: float, n_updates: int = 200) -> list[bool]:
        return [detector.update({"x": severity}, n_updates) for severity in severities]

    assert feed(2, 2, 2, 2, n_updates=99) == [False] * 4  # too early to judge
    assert feed(2, 2, 0.9, 2, 2, math.nan, 2, 2) == [False] * 8  # never three in a row
    assert feed(1.0) == [True] and detector.active  # the threshold itself counts
    assert feed(3, 0.6, 0.9, 3) == [False] * 4 and detector.active  # below 1 but not below a half: still the same alarm
    assert feed(0.4) == [False] and not detector.active
    assert feed(3, 3, 3) == [False, False, True]
    assert detector.explain({"x": 3}) == "made_up: x is 3"


def test_every_message_names_an_argument_to_change() -> None:
    from inspect import signature

    from sb3_rpg import RPG

    arguments = set(signature(RPG.__init__).parameters)
    for failure in FAILURES:
        named = {word.split("[")[0].split("=")[0] for word in failure.message.split("`")[1::2]}
        assert len(named & arguments) >= 2 and named <= arguments | {"n_frequencies", "learning_rate", "Ramp"}, failure.kind
