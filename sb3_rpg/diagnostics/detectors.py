"""
The ways in which training goes wrong, what shows them, and what to do about each.

A failure has a *severity*, a number that is 1 at the threshold. A :class:`Detector` raises its alarm when the severity was 1
or more so many times in a row, and takes it back when it has fallen below a half.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Measured = Mapping[str, float]

#: with less information in nats, z is ignored: exp(0.2) = 1.2 z can be told apart
IGNORED = 0.2
#: unless it rises by so much between five measurements
INFORMATION_RISE = 0.03
#: with more, modes are apart; two that never are confused make log 2 = 0.69
MODES_APART = 0.5
#: share of exploration in the spread of the reward, entropy left out
EXPLORATION_SHARE = 0.9
#: returns rise if the last third of the episodes is better than the first by so many standard deviations
RISE = 0.3
#: error of the model after ``horizon`` steps, in variances of the states
MODEL_ERROR = 0.5
#: bias of imagined returns, in standard deviations of the real ones
RETURN_BIAS = 1.0
#: standard deviation of the bonus over stored transitions, in those that it is normalised by
BONUS_SPREAD = 0.1
#: bias of the values, in units of what was reached
VALUE_BIAS = 2.0
#: alpha as a multiple of its initial value
ALPHA_LOW, ALPHA_HIGH = 1e-3, 1e2


class TrainingWarning(UserWarning):
    """Training goes wrong in a known way; the message says how that shows, and which argument to change."""


@dataclass(frozen=True)
class Failure:
    """
    A way in which training goes wrong.

    :param kind: short name, as it is logged
    :param severity: of what was measured: 1 at the threshold, more is worse; NaN: cannot be judged
    :param message: what is seen and what to do, a format string over what was measured
    :param patience: times in a row that the severity must be 1 or more
    """

    kind: str
    severity: Callable[[Measured], float]
    message: str
    patience: int = 4


class Detector:
    """
    Watches for one failure.

    :param failure: the failure
    :param min_updates: updates of the world model before it is judged
    """

    def __init__(self, failure: Failure, min_updates: int = 1000):
        self.failure, self.min_updates = failure, min_updates
        self.active = False
        self._in_a_row = 0

    def update(self, measured: Measured, n_updates: int) -> bool:
        """
        :param measured: see :func:`~sb3_rpg.diagnostics.measure`
        :param n_updates: updates of the world model so far
        :return: whether the alarm has just been raised
        """
        severity = self.failure.severity(measured)
        if n_updates < self.min_updates or math.isnan(severity):
            self._in_a_row = 0
            return False
        self._in_a_row = self._in_a_row + 1 if severity >= 1.0 else 0
        if self.active:
            self.active = severity >= 0.5
            return False
        self.active = self._in_a_row >= self.failure.patience
        return self.active

    def explain(self, measured: Measured) -> str:
        """
        :param measured: what raised the alarm
        :return: the warning's text
        """
        return f"{self.failure.kind}: {self.failure.message.format(**measured)}"


def _get(measured: Measured, *names: str) -> list[float]:
    return [measured.get(name, math.nan) for name in names]


def _all_of(*severities: float) -> float:
    """The severity of a failure that needs all of several signs; NaN if one of them cannot be judged."""
    return math.nan if any(math.isnan(severity) for severity in severities) else min(severities)


def _below(value: float, threshold: float) -> float:
    """1 at the threshold, more the further below; without bound at 0 and below."""
    return threshold / value if value > 0 else (math.nan if math.isnan(value) else math.inf)


def _no_rise(rise: float, threshold: float = RISE) -> float:
    """2 where something stands still or falls, 1 at the threshold, 0 where it rises by twice as much."""
    return rise if math.isnan(rise) else 2.0 - min(2.0, max(0.0, rise / threshold))


def _mode_collapse(measured: Measured) -> float:
    information, rise, progress = _get(measured, "information", "information_rise", "return_progress")
    # Where pi(z|s1) is left with one z, as at the end of a falling `latent_target_entropy`, there is nothing to tell apart
    if measured.get("posterior_bound_max", math.nan) < 2.0 * IGNORED:
        return math.nan
    return _all_of(_below(information, IGNORED), _no_rise(rise, INFORMATION_RISE), _no_rise(progress))


def _over_exploration(measured: Measured) -> float:
    share, extrinsic, information, progress = _get(
        measured, "exploration_share", "share_extrinsic", "information", "return_progress"
    )
    if extrinsic == 0.0:  # no reward has been seen that could be exploited
        return 0.0
    return _all_of(share / EXPLORATION_SHARE, information / MODES_APART, _no_rise(progress))


def _model_bias(measured: Measured) -> float:
    error, bias = _get(measured, "model_error", "model_return_bias")
    return max(error / MODEL_ERROR, 0.0 if math.isnan(bias) else abs(bias) / RETURN_BIAS)


def _bonus_exhaustion(measured: Measured) -> float:
    spread, extrinsic, progress = _get(measured, "bonus_spread", "share_extrinsic", "return_progress")
    # Where reward is found there is something else to learn from
    return _all_of(_below(spread, BONUS_SPREAD), _below(extrinsic, 0.5), _no_rise(progress))


def _value_overestimation(measured: Measured) -> float:
    return measured.get("value_bias_relative", math.nan) / VALUE_BIAS


def _alpha_collapse(measured: Measured) -> float:
    change, gap = _get(measured, "ent_coef_change", "entropy_gap")
    # At a policy as random as it is told to be, a small alpha is one that does its work
    return _all_of(_below(change, ALPHA_LOW), 2.0 * abs(gap))


def _alpha_explosion(measured: Measured) -> float:
    return measured.get("ent_coef_change", math.nan) / ALPHA_HIGH


FAILURES: Sequence[Failure] = (
    Failure(
        "mode_collapse",
        _mode_collapse,
        "the policy ignores z: states and actions tell {information:.2f} nats about it, where two modes make 0.69, and "
        "returns do not rise. Where a single solution is what you want, all is well. Else increase `beta` (now {beta:.3g}; "
        "its term is {share_posterior:.0%} of what moves the reward) or decrease `reward_scale`.",
    ),
    Failure(
        "over_exploration",
        _over_exploration,
        "modes are told apart but not used: {share_posterior:.0%} of what moves the reward is the beta term, "
        "{share_bonus:.0%} the bonus, {share_extrinsic:.0%} the environment's reward, and returns do not rise. Decrease "
        "`beta` (now {beta:.3g}) or let it fall with a `Ramp`; decrease `intrinsic_reward_kwargs['scale']` where the bonus "
        "is what is large; or increase `reward_scale`.",
    ),
    Failure(
        "model_bias",
        _model_bias,
        "the world model does not predict new steps: after `horizon` of them its error is {model_error:.2f} times the "
        "variance of the states, and imagined returns are off by {model_return_bias:+.2f} standard deviations of the real "
        "ones. Increase `model_lr_factor`, or update more often (`gradient_steps`, a smaller `train_freq`); decrease "
        "`horizon`; if losses swing, decrease `learning_rate`.",
    ),
    Failure(
        "bonus_exhaustion",
        _bonus_exhaustion,
        "the bonus ranks nothing any more: over all stored transitions it varies by {bonus_spread:.3f} of the standard "
        "deviation that it is normalised by, and no reward has taken its place. Name the objects of interest, or more of "
        "them (`intrinsic_reward_kwargs['indices']`), increase its `n_frequencies`, or decrease its `learning_rate`; where "
        "rewards are dense, `intrinsic_reward='none'` saves the time.",
    ),
    Failure(
        "value_overestimation",
        _value_overestimation,
        "values promise more than is reached: V(s,z) is {value:.3g} on average and {value_bias:.3g} too high, "
        "{value_bias_relative:.1f} times size and spread of what was really reached. Decrease `model_lr_factor` or `gamma`, "
        "increase `batch_size`, use more value heads (`policy_kwargs=dict(n_critics=...)`), of which the smallest counts, or "
        "let a falling `reward_scale` fall more slowly.",
    ),
    Failure(
        "alpha_collapse",
        _alpha_collapse,
        "the entropy coefficient has fallen to {ent_coef:.2g}, {ent_coef_change:.1g} of where it started, while the "
        "entropy is {entropy_gap:+.2f} nats an action dimension from its target: noise in the actions is no longer paid "
        "for. Use a fixed `ent_coef`, increase `target_entropy`, or decrease `ent_coef_lr_factor`.",
    ),
    Failure(
        "alpha_explosion",
        _alpha_explosion,
        "the entropy coefficient has risen to {ent_coef:.2g}, {ent_coef_change:.0f} times where it started: noise in the "
        "actions is paid for more than reward. Decrease `target_entropy` (the entropy is {entropy_gap:+.2f} nats an action "
        "dimension from it), use a fixed `ent_coef`, or decrease `ent_coef_lr_factor`.",
    ),
)
