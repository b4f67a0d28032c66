"""Runs made to fail in each of the known ways are warned of, healthy ones are not; the same runs as in docs/diagnosis.md."""

from __future__ import annotations

import pytest

from benchmarks.diagnosis import watch
from benchmarks.diagnosis_cases import CASES, Case
from sb3_rpg.diagnostics import FAILURES

pytestmark = pytest.mark.slow

#: not the seed of the documentation's figure
SEED = 11


def test_there_is_a_case_for_every_failure() -> None:
    assert {case.name for case in CASES} == {failure.kind for failure in FAILURES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_run_made_to_fail_is_warned_of(case: Case) -> None:
    texts = watch(case, healthy=False, seed=SEED).warnings
    assert [text.partition(":")[0] for text in texts].count(case.name) == 1, texts


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name in ("mode_collapse", "over_exploration", "bonus_exhaustion")]
)
def test_a_healthy_run_is_not(case: Case) -> None:
    assert watch(case, healthy=True, seed=SEED).warnings == []
