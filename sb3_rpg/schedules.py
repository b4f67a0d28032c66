"""Schedules of coefficients: numbers, SB3's functions of the remaining progress, and ramps between two environment steps."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any


def is_coefficient(value: object, minimum: float = 0.0) -> bool:
    """
    :return: whether it is a finite number of at least ``minimum``
    """
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(float(value)) and float(value) >= minimum


def _wanted(minimum: float) -> str:
    return "a number" if minimum == -math.inf else f"a number of at least {minimum:g}"


@dataclass(frozen=True)
class Ramp:
    """
    Constant, then linear between two environment steps, then constant; linear in the logarithm with ``log=True``.

    The paper's dense-reward tasks decay the entropy of pi(z|s1) from 3e5 to 1e6 environment steps; its code raises the
    reward's weight instead (``Ramp(0.01, 1.0, start=4e5, end=1e6)``, there counted in updates).

    :param initial: value up to ``start``
    :param final: value from ``end`` on
    :param start: environment steps
    :param end: environment steps
    :param log: interpolate the logarithm
    :raises ValueError: if an argument is no number, a step is negative, a value is with ``log`` not positive, or if ``end`` is
        not behind ``start``
    """

    initial: float
    final: float
    start: float
    end: float
    log: bool = False

    def __post_init__(self) -> None:
        for name in ("initial", "final", "start", "end"):
            minimum = 0.0 if name in ("start", "end") else -math.inf
            if not is_coefficient(getattr(self, name), minimum):
                raise ValueError(f"a Ramp needs {_wanted(minimum)} as `{name}`, got {getattr(self, name)!r}")
        if not self.start < self.end:
            raise ValueError(f"a Ramp needs `start` < `end` in environment steps, got {self.start!r} and {self.end!r}")
        if self.log and min(self.initial, self.final) <= 0:
            raise ValueError(f"a Ramp with log=True needs positive values, got {self.initial!r} and {self.final!r}")

    def at(self, num_timesteps: int) -> float:
        """
        :param num_timesteps: environment steps so far
        :return: the coefficient
        """
        share = min(max((num_timesteps - self.start) / (self.end - self.start), 0.0), 1.0)
        if self.log:
            return math.exp(math.log(self.initial) * (1 - share) + math.log(self.final) * share)
        return self.initial * (1 - share) + self.final * share


#: a number, SB3's function of the remaining progress (1 to 0), a Ramp, or a Ramp's arguments as a mapping (from YAML)
Coefficient = float | Callable[[float], float] | Ramp | Mapping[str, Any]


def make_coefficient(name: str, value: Coefficient, minimum: float = 0.0) -> float | Callable[[float], float] | Ramp:
    """
    Check a coefficient before any training starts.

    :param name: the argument's name, for errors
    :param value: what the user gave
    :param minimum: what it must never be below
    :return: a number, a function of the remaining progress or a Ramp
    :raises ValueError: if the value is none of these, below the minimum or not finite
    """
    if isinstance(value, Mapping):
        try:
            ramp = Ramp(**value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"`{name}`={dict(value)!r} is no Ramp: give initial, final, start and end ({error})") from error
        value = ramp
    if isinstance(value, Ramp):
        if min(value.initial, value.final) < minimum:
            raise ValueError(f"`{name}`={value!r} must not fall below {minimum:g}")
        return value
    if callable(value):
        for progress in (1.0, 0.0):
            if not is_coefficient(number := float(value(progress)), minimum):
                raise ValueError(
                    f"`{name}`, a function of the remaining progress, must return {_wanted(minimum)}, got {number} at "
                    f"{progress:g}"
                )
        return value
    if not is_coefficient(value, minimum):
        raise ValueError(f"`{name}` must be {_wanted(minimum)}, a function of the remaining progress or a Ramp, got {value!r}")
    return float(value)


def make_automatic_coefficient(name: str, value: Any, minimum: float = 0.0) -> Any:
    """
    :param name: the argument's name, for errors
    :param value: what the user gave
    :param minimum: what it must never be below
    :return: "auto", or see :func:`make_coefficient`
    :raises ValueError: if the value is neither
    """
    if isinstance(value, str):
        if value != "auto":
            raise ValueError(f"`{name}` must be a number, a schedule, a Ramp or 'auto', got {value!r}")
        return value
    return make_coefficient(name, value, minimum)


def extremes(coefficient: float | Callable[[float], float] | Ramp) -> tuple[float, float]:
    """
    :param coefficient: see :func:`make_coefficient`
    :return: least and largest value that it has at its ends
    """
    if isinstance(coefficient, Ramp):
        ends: tuple[float, float] = (coefficient.initial, coefficient.final)
    elif callable(coefficient):
        ends = (float(coefficient(1.0)), float(coefficient(0.0)))
    else:
        ends = (coefficient, coefficient)
    return min(ends), max(ends)


def initial_coefficient(name: str, automatic: str) -> float:
    """
    :param name: the argument's name, for errors
    :param automatic: "auto" or "auto_<initial value>", as SB3 has it for ``ent_coef``
    :return: the value to start from, 1 unless named
    :raises ValueError: if the text is neither
    """
    kind, _, text = automatic.partition("_")
    try:
        initial = float(text or 1.0)
    except ValueError:
        initial = math.nan
    if kind != "auto" or not 0 < initial < math.inf:
        raise ValueError(f"`{name}` must be 'auto', 'auto_<initial value>' or a number, got {automatic!r}")
    return initial


def coefficient_at(
    coefficient: float | Callable[[float], float] | Ramp, num_timesteps: int, progress_remaining: float
) -> float:
    """
    :param coefficient: see :func:`make_coefficient`
    :param num_timesteps: environment steps so far
    :param progress_remaining: 1 at the start of ``learn()``, 0 at its end
    :return: the coefficient now
    """
    if isinstance(coefficient, Ramp):
        return coefficient.at(num_timesteps)
    return float(coefficient(progress_remaining)) if callable(coefficient) else coefficient
