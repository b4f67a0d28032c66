"""Coefficients that change with training: ramps, functions of the remaining progress, and what is said about bad ones."""

import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_rpg import Ramp
from sb3_rpg.schedules import coefficient_at, extremes, make_automatic_coefficient, make_coefficient


@pytest.mark.parametrize(
    ("step", "value"), [(0, 4.0), (100, 4.0), (150, 3.0), (200, 2.0), (299, 0.02), (300, 0.0), (10**9, 0.0)]
)
def test_ramp_is_constant_then_linear_then_constant(step: int, value: float) -> None:
    assert Ramp(4.0, 0.0, start=100, end=300).at(step) == pytest.approx(value)


def test_ramp_in_the_logarithm() -> None:
    ramp = Ramp(0.01, 1.0, start=0, end=4, log=True)
    assert [ramp.at(step) for step in range(5)] == pytest.approx([0.01, 10**-1.5, 0.1, 10**-0.5, 1.0])


@settings(deadline=None, max_examples=60)
@given(a=st.floats(0.001, 10), b=st.floats(0.001, 10), step=st.integers(0, 3000), log=st.booleans())
def test_ramp_stays_between_its_ends_and_is_monotonic(a: float, b: float, step: int, log: bool) -> None:
    ramp = Ramp(a, b, start=1000, end=2000, log=log)
    now, later = ramp.at(step), ramp.at(step + 1)
    tolerance = 1e-9 * max(a, b)
    assert min(a, b) - tolerance <= now <= max(a, b) + tolerance
    assert (later - now) * (b - a) >= -tolerance


def test_ramps_can_be_pickled_and_compared_as_load_does() -> None:
    ramp = Ramp(1.0, 0.0, 0, 10)
    assert pickle.loads(pickle.dumps(ramp)) == ramp


@pytest.mark.parametrize("value", [0, 0.0, 3, 0.25, np.float32(0.25), np.float64(0.25), np.int64(2)])
def test_numbers_of_all_kinds_become_floats(value: Any) -> None:
    coefficient = make_coefficient("beta", value)
    assert type(coefficient) is float and coefficient == float(value)
    assert coefficient_at(coefficient, 5, 0.5) == float(value)


@pytest.mark.parametrize(
    ("function", "message"),
    [(lambda p: -1.0, "got -1.0 at 1"), (lambda p: p - 0.5, "got -0.5 at 0"), (lambda p: math.nan, "got nan at 1")],
)
def test_functions_are_checked_at_both_ends(function: Callable[[float], float], message: str) -> None:
    with pytest.raises(ValueError, match=f"`beta`, a function of the remaining progress, must return .* {message}"):
        make_coefficient("beta", function)


def test_functions_get_the_remaining_progress_and_ramps_the_step() -> None:
    assert coefficient_at(make_coefficient("beta", lambda progress: 3.0 * progress), 100, 0.25) == 0.75
    assert coefficient_at(make_coefficient("beta", Ramp(0.0, 1.0, 0, 100)), 25, 0.9) == 0.25
    assert coefficient_at(make_coefficient("beta", {"initial": 0.0, "final": 1.0, "start": 0, "end": 100}), 25, 0.9) == 0.25


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "0.1", None, True, [0.1], np.array([0.1, 0.2])])
def test_what_is_no_coefficient_is_refused_by_name_and_value(value: Any) -> None:
    with pytest.raises(ValueError, match=r"`beta` must be a number of at least 0, a function .* or a Ramp, got") as error:
        make_coefficient("beta", value)
    assert repr(value) in str(error.value)


def test_negative_values_are_for_what_may_be_negative() -> None:
    ramp = {"initial": 2.0, "final": -3.0, "start": 0, "end": 10}
    with pytest.raises(ValueError, match=r"`beta`=Ramp\(.*final=-3.0.*\) must not fall below 0"):
        make_coefficient("beta", ramp)
    made = make_automatic_coefficient("latent_target_entropy", ramp, minimum=-math.inf)
    assert coefficient_at(made, 10, 0.0) == -3.0 and extremes(made) == (-3.0, 2.0)
    with pytest.raises(ValueError, match=r"`latent_target_entropy` must be a number, a function .*got nan"):
        make_automatic_coefficient("latent_target_entropy", math.nan, minimum=-math.inf)
    assert extremes(lambda progress: progress - 0.5) == (-0.5, 0.5) and extremes(4.0) == (4.0, 4.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"initial": "1e-3"}, "a number as `initial`, got '1e-3'"),  # YAML reads 1e-3 as a string
        ({"final": math.inf}, "a number as `final`, got inf"),
        ({"end": None}, "a number of at least 0 as `end`, got None"),
        ({"start": -5}, "a number of at least 0 as `start`, got -5"),
        ({"start": 20}, "`start` < `end` in environment steps, got 20 and 10"),
        ({"end": 0}, "`start` < `end`"),
        ({"log": True, "final": 0.0}, "with log=True needs positive values"),
        ({"stop": 3}, "unexpected keyword argument 'stop'"),
    ],
)
def test_a_bad_ramp_is_refused_when_it_is_made(change: dict[str, Any], message: str) -> None:
    arguments = {"initial": 1.0, "final": 2.0, "start": 0, "end": 10, **change}
    with pytest.raises((ValueError, TypeError), match=message):
        Ramp(**arguments)
    # From a file it also says which argument it was given for
    with pytest.raises(ValueError, match=rf"`beta`=.* is no Ramp: give initial, final, start and end .*{message}"):
        make_coefficient("beta", arguments)
