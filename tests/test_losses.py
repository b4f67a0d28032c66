"""The paper's equations against numbers worked out by hand, slow references and finite differences."""

import math
from typing import Any

import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_rpg.latents import CategoricalLatent
from sb3_rpg.losses import (
    ModelTargets,
    actor_loss,
    category_value_loss,
    entropy_coefficient_loss,
    latent_temperature_step,
    model_losses,
    posterior_loss,
    value_estimate,
)

HALF: dict[str, Any] = {"gamma": 0.5, "weight_decay": 0.5}


def column(*values: float) -> th.Tensor:
    """(K, 1): a batch of one."""
    return th.tensor(values).unsqueeze(1)


# ------------------------------------------------------------------- Eq. 3


def test_one_step_is_reward_plus_bonus_plus_discounted_value() -> None:
    estimate = value_estimate(column(2.0), column(0.25), th.tensor([[[8.0]]]), gamma=0.5)
    assert estimate.shape == (1, 1)
    assert estimate.item() == 2.0 + 0.25 + 0.5 * 8.0


def test_three_steps_by_hand() -> None:
    rewards, intrinsic = column(1.0, 2.0, 4.0), column(0.5, -1.0, 2.0)
    values = th.tensor([8.0, 16.0, 32.0]).view(3, 1, 1)
    # v_k = sum_{j <= k} gamma^j (r_j + r'_j) + gamma^{k+1} V_k with gamma = 1/2
    v_0 = 1.5 + 0.5 * 8.0  # = 5.5
    v_1 = 1.5 + 0.5 * 1.0 + 0.25 * 16.0  # = 6
    v_2 = 1.5 + 0.5 * 1.0 + 0.25 * 6.0 + 0.125 * 32.0  # = 7.5
    expected = (1.0 * v_0 + 0.5 * v_1 + 0.25 * v_2) / 1.75  # = (5.5 + 3 + 1.875) / 1.75
    assert value_estimate(rewards, intrinsic, values, **HALF).item() == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(10.375 / 1.75)


def test_weights_are_0_97_to_the_k_by_default() -> None:
    values = th.tensor([1.0, 2.0]).view(2, 1, 1)
    zeros = column(0.0, 0.0)
    expected = (0.9 * 1.0 + 0.97 * 0.81 * 2.0) / 1.97
    assert value_estimate(zeros, zeros, values, gamma=0.9).item() == pytest.approx(expected, rel=1e-6)


def test_heads_and_batch_do_not_mix() -> None:
    rewards, intrinsic, values = th.randn(3, 5), th.randn(3, 5), th.randn(3, 2, 5)
    together = value_estimate(rewards, intrinsic, values, 0.9)
    assert together.shape == (2, 5)
    for head in range(2):
        for b in range(5):
            alone = value_estimate(rewards[:, b : b + 1], intrinsic[:, b : b + 1], values[:, head : head + 1, b : b + 1], 0.9)
            assert together[head, b].item() == pytest.approx(alone.item(), rel=1e-5)


def test_what_lies_behind_a_termination_counts_for_nothing() -> None:
    rewards, intrinsic = column(1.0, 2.0, 4.0), column(0.5, -1.0, 2.0)
    values = th.tensor([8.0, 16.0, 32.0]).view(3, 1, 1)
    # The episode ends with step 1: its reward and r' still count, V_1 and all of step 2 do not
    v_0 = 1.5 + 0.5 * 8.0
    v_1 = 1.5 + 0.5 * 1.0
    v_2 = 1.5 + 0.5 * 1.0
    expected = (v_0 + 0.5 * v_1 + 0.25 * v_2) / 1.75
    estimate = value_estimate(rewards, intrinsic, values, **HALF, continues=column(1.0, 0.0, 1.0))
    assert estimate.item() == pytest.approx(expected, rel=1e-6)


def test_probabilities_of_going_on_multiply() -> None:
    rewards, zeros = column(1.0, 2.0), column(0.0, 0.0)
    values = th.tensor([8.0, 16.0]).view(2, 1, 1)
    v_0 = 1.0 + 0.5 * 0.75 * 8.0
    v_1 = 1.0 + 0.5 * 0.75 * 2.0 + 0.25 * (0.75 * 0.5) * 16.0
    estimate = value_estimate(rewards, zeros, values, **HALF, continues=column(0.75, 0.5))
    assert estimate.item() == pytest.approx((v_0 + 0.5 * v_1) / 1.5, rel=1e-6)


def test_certainly_going_on_equals_no_terminations() -> None:
    rewards, intrinsic, values = th.randn(4, 3), th.randn(4, 3), th.randn(4, 2, 3)
    with_ones = value_estimate(rewards, intrinsic, values, 0.9, continues=th.ones(4, 3))
    assert th.allclose(with_ones, value_estimate(rewards, intrinsic, values, 0.9))


def reference(
    rewards: list[float], intrinsic: list[float], values: list[float], gamma: float, weight: float, continues: list[float]
) -> float:
    """Eq. 3 as it is written, for one element of the batch."""
    total, weights = 0.0, 0.0
    for k in range(len(rewards)):
        v = 0.0
        for j in range(k + 1):
            v += gamma**j * math.prod(continues[:j]) * (rewards[j] + intrinsic[j])
        v += gamma ** (k + 1) * math.prod(continues[: k + 1]) * values[k]
        total += weight**k * v
        weights += weight**k
    return total / weights


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n_steps=st.integers(1, 6), gamma=st.floats(0.1, 1.0), weight=st.floats(0.05, 2.0))
def test_equals_the_slow_double_loop(data: st.DataObject, n_steps: int, gamma: float, weight: float) -> None:
    numbers = st.lists(st.floats(-10, 10), min_size=n_steps, max_size=n_steps)
    rewards, intrinsic, values = data.draw(numbers), data.draw(numbers), data.draw(numbers)
    continues = data.draw(st.lists(st.floats(0, 1), min_size=n_steps, max_size=n_steps))
    tensors = [th.tensor(x, dtype=th.float64).unsqueeze(1) for x in (rewards, intrinsic, continues)]
    estimate = value_estimate(
        tensors[0], tensors[1], th.tensor(values, dtype=th.float64).view(-1, 1, 1), gamma, weight, tensors[2]
    )
    expected = reference(rewards, intrinsic, values, gamma, weight, continues)
    assert estimate.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    n_steps=st.integers(1, 8), gamma=st.floats(0.5, 0.99), reward=st.floats(-5, 5), bonus=st.floats(-5, 5), w=st.floats(0.1, 2)
)
def test_constant_reward_and_its_own_value_give_the_closed_form(
    n_steps: int, gamma: float, reward: float, bonus: float, w: float
) -> None:
    value = (reward + bonus) / (1 - gamma)
    shape = (n_steps, 1)
    estimate = value_estimate(
        th.full(shape, reward, dtype=th.float64),
        th.full(shape, bonus, dtype=th.float64),
        th.full((n_steps, 1, 1), value, dtype=th.float64),
        gamma,
        w,
    )
    assert estimate.item() == pytest.approx(value, rel=1e-9, abs=1e-9)


def test_gradient_of_the_value_estimate_equals_finite_differences() -> None:
    shapes = ((3, 2), (3, 2), (3, 2, 2))
    inputs = [th.randn(*shape, dtype=th.float64, requires_grad=True) for shape in shapes]
    continues = th.rand(3, 2, dtype=th.float64).requires_grad_(True)

    def estimate(r: th.Tensor, i: th.Tensor, v: th.Tensor, c: th.Tensor) -> th.Tensor:
        return value_estimate(r, i, v, 0.9, 0.97, c)

    assert th.autograd.gradcheck(estimate, (*inputs, continues))


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(AssertionError):
        value_estimate(th.zeros(3, 4), th.zeros(2, 4), th.zeros(3, 2, 4), 0.9)
    with pytest.raises(AssertionError):
        value_estimate(th.zeros(3, 4), th.zeros(3, 4), th.zeros(2, 3, 4), 0.9)


# ------------------------------------------------------------------- Eq. 4


def example() -> tuple[th.Tensor, th.Tensor, th.Tensor, th.Tensor, ModelTargets]:
    """K = 2, B = 2, S = 2, H = 2; the second segment's episode ends with its first step."""
    states = th.tensor([[[1.0, 3.0], [0.0, 0.0]], [[2.0, 2.0], [50.0, 50.0]]])
    rewards = th.tensor([[1.0, 0.0], [3.0, 70.0]])
    values = th.tensor([[[1.0, 2.0], [3.0, 90.0]], [[0.0, 2.0], [5.0, 80.0]]])
    logits = th.tensor([[0.0, 0.0], [math.log(3.0), 60.0]])
    targets = ModelTargets(
        states=th.tensor([[[0.0, 1.0], [2.0, 0.0]], [[2.0, 4.0], [0.0, 0.0]]]),
        rewards=th.tensor([[0.0, 2.0], [1.0, 0.0]]),
        values=th.tensor([[2.0, 0.0], [1.0, 0.0]]),
        terminated=th.tensor([[0.0, 1.0], [0.0, 0.0]]),
        mask=th.tensor([[1.0, 1.0], [1.0, 0.0]]),
        head_mask=th.tensor([[1.0, 1.0], [1.0, 0.0]]),
    )
    return states, rewards, values, logits, targets


def test_losses_by_hand() -> None:
    losses, step_errors = model_losses(*example())
    # Meaned over features; summed over batch and time, divided by B K = 4; the fourth step is masked
    # (t=0, b=0): (1 + 4) / 2, (0, 1): (4 + 0) / 2, (1, 0): (0 + 4) / 2
    assert losses["consistency"].item() == pytest.approx((2.5 + 2.0 + 2.0) / 4)
    assert losses["reward"].item() == pytest.approx((1.0 + 4.0 + 4.0) / 4)
    # Head 0: (1-2)^2, (2-0)^2, (3-1)^2; head 1: (0-2)^2, (2-0)^2, (5-1)^2
    assert losses["value"].item() == pytest.approx((1.0 + 4.0 + 4.0 + 4.0 + 4.0 + 16.0) / 4)
    # -log(1 - 1/2), -log(1/2), -log(1 - 3/4)
    assert losses["termination"].item() == pytest.approx((2 * math.log(2.0) + math.log(4.0)) / 4)
    # Errors of each step are means over the valid ones
    assert th.allclose(step_errors, th.tensor([(2.5 + 2.0) / 2, 2.0]))


def test_terminations_are_optional() -> None:
    states, rewards, values, _, targets = example()
    assert set(model_losses(states, rewards, values, None, targets)[0]) == {"consistency", "reward", "value"}


def test_masked_steps_have_no_gradient_and_valid_ones_the_right_one() -> None:
    states, rewards, values, logits, targets = example()
    inputs = [tensor.requires_grad_(True) for tensor in (states, rewards, values, logits)]
    losses, _ = model_losses(states, rewards, values, logits, targets)
    sum(losses.values(), th.zeros(())).backward()
    for tensor, masked in zip(inputs, (states[1, 1], rewards[1, 1], values[:, 1, 1], logits[1, 1]), strict=True):
        assert tensor.grad is not None and tensor.grad.abs().sum() > 0, masked
    assert th.all(states.grad[1, 1] == 0) and rewards.grad[1, 1] == 0  # type: ignore[index]
    assert th.all(values.grad[:, 1, 1] == 0) and logits.grad[1, 1] == 0  # type: ignore[index]
    assert rewards.grad[0, 0].item() == pytest.approx(2 * (1.0 - 0.0) / 4)  # type: ignore[index]
    assert states.grad[0, 0, 1].item() == pytest.approx(2 * (3.0 - 1.0) / 2 / 4)  # type: ignore[index]


def test_whats_behind_an_episodes_end_changes_no_loss() -> None:
    states, rewards, values, logits, targets = example()
    first, errors = model_losses(states, rewards, values, logits, targets)
    for tensor in (states[1, 1], rewards[1:, 1], values[:, 1, 1], logits[1:, 1]):
        tensor += 7.0
    targets.states[1, 1] -= 3.0
    targets.values[1, 1] = 1000.0
    second, errors_after = model_losses(states, rewards, values, logits, targets)
    assert {name: loss.item() for name, loss in first.items()} == {name: loss.item() for name, loss in second.items()}
    assert th.equal(errors, errors_after)


def test_errors_of_a_step_that_no_segment_reaches_are_0_not_nan() -> None:
    states, rewards, values, logits, targets = example()
    targets.mask[1] = targets.head_mask[1] = 0.0
    losses, step_errors = model_losses(states, rewards, values, logits, targets)
    assert step_errors[1].item() == 0.0
    assert all(math.isfinite(loss.item()) for loss in losses.values())


def test_longer_segments_do_not_weigh_more() -> None:
    def loss(n_steps: int) -> float:
        shape = (n_steps, 3)
        ones, zeros = th.ones(shape), th.zeros(shape)
        targets = ModelTargets(th.zeros(*shape, 2), ones, zeros, zeros, zeros, ones)
        return model_losses(th.ones(*shape, 2), ones, th.ones(2, *shape), None, targets)[0]["consistency"].item()

    assert loss(1) == loss(5) == 1.0


def test_the_heads_losses_of_one_step_at_a_time_average_to_those_of_all() -> None:
    states, rewards, values, logits, targets = example()
    everything = model_losses(states, rewards, values, logits, targets)[0]
    alone = []
    for k in range(len(states)):
        of_heads = ("rewards", "values", "terminated", "head_mask")
        some = targets._replace(**{name: getattr(targets, name)[k : k + 1] for name in of_heads})
        one = slice(k, k + 1)
        alone.append(model_losses(states, rewards[one], values[:, one], logits[one], some)[0])
    for name, term in everything.items():
        assert th.stack([losses[name] for losses in alone]).mean().item() == pytest.approx(term.item()), name


# ----------------------------------------------------------- the other terms


def test_actor_maximises_the_first_heads_estimate() -> None:
    estimates = th.tensor([[1.0, 3.0], [100.0, 100.0]], requires_grad=True)
    loss = actor_loss(estimates)
    loss.backward()
    assert loss.item() == -2.0
    assert estimates.grad is not None and th.equal(estimates.grad, th.tensor([[-0.5, -0.5], [0.0, 0.0]]))


@pytest.mark.parametrize(("entropy", "direction"), [(1.0, -1), (3.0, 1)])
def test_alpha_rises_where_entropy_is_below_its_target(entropy: float, direction: int) -> None:
    log_alpha = th.tensor([math.log(0.01)], requires_grad=True)
    log_prob = th.full((3, 4), -entropy, requires_grad=True)
    entropy_coefficient_loss(log_alpha, log_prob, target_entropy=2.0).backward()
    assert log_alpha.grad is not None and math.copysign(1, log_alpha.grad.item()) == direction
    assert log_prob.grad is None


def test_alpha_rests_where_the_mean_entropy_is_on_target() -> None:
    log_alpha = th.zeros(1, requires_grad=True)
    entropy_coefficient_loss(log_alpha, th.tensor([[-1.0, -3.0]]), target_entropy=2.0).backward()
    assert log_alpha.grad is not None and log_alpha.grad.item() == 0.0


@pytest.mark.parametrize(
    ("entropy", "factor"), [(2.0, 1.0), (1.5, math.exp(0.05)), (0.0, math.exp(0.1)), (9.0, math.exp(-0.1))]
)
def test_alpha_z_follows_the_entropys_distance_from_its_target(entropy: float, factor: float) -> None:
    assert latent_temperature_step(th.tensor(3.0), th.tensor(entropy), 2.0).item() == pytest.approx(3.0 * factor)


@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-2, 1.0, 1e2]), share=st.floats(0.2, 0.95))
@settings(max_examples=30, deadline=None)
def test_alpha_z_finds_the_target_entropy_whatever_the_scale_of_q(seed: int, scale: float, share: float) -> None:
    q = scale * th.randn(16, 8, generator=th.Generator().manual_seed(seed))
    space, target, temperature = CategoricalLatent(8), share * math.log(8), th.tensor(1.0)
    for _ in range(500):
        temperature = latent_temperature_step(temperature, space.entropy(16, q, temperature, q.device).mean(), target)
    assert space.entropy(16, q, temperature, q.device).mean().item() == pytest.approx(target, abs=0.02)


def test_alpha_z_stays_finite_where_no_temperature_reaches_the_target() -> None:
    for target, bound in ((5.0, 1e6), (0.0, 1e-6)):
        temperature = th.tensor(1.0)
        for _ in range(1000):
            temperature = latent_temperature_step(temperature, th.tensor(2.0), target)
        assert temperature.item() == pytest.approx(bound)


def test_posterior_loss_is_the_negative_mean_log_likelihood() -> None:
    assert posterior_loss(th.tensor([[-1.0, -2.0], [-3.0, -6.0]])).item() == 3.0


def test_category_values_are_regressed_on_the_estimate_of_the_drawn_category() -> None:
    q = th.tensor([[1.0, 5.0], [2.0, 7.0], [0.0, 0.0]], requires_grad=True)
    chosen = th.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    value = th.tensor([3.0, 2.5, 9.0], requires_grad=True)
    # The third is no episode start
    loss = category_value_loss(q, chosen, value, weight=th.tensor([0.5, 0.5, 0.0]))
    loss.backward()
    assert loss.item() == pytest.approx(0.5 * (5.0 - 3.0) ** 2 + 0.5 * (2.0 - 2.5) ** 2)
    assert value.grad is None
    assert th.allclose(q.grad, th.tensor([[0.0, 2.0], [-0.5, 0.0], [0.0, 0.0]]))  # type: ignore[arg-type]


def test_gradient_of_log_alpha_is_alpha_times_the_entropys_excess() -> None:
    log_alpha = th.tensor([math.log(0.01)], requires_grad=True)
    loss = entropy_coefficient_loss(log_alpha, th.full((3, 4), -5.0), target_entropy=2.0)
    loss.backward()
    assert loss.item() == pytest.approx(0.03) and log_alpha.grad is not None
    assert log_alpha.grad.item() == pytest.approx(0.01 * (5.0 - 2.0))
