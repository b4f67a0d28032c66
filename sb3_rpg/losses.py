"""
The equations of the paper as pure functions over tensors: no network, no environment, no state.

Time is the first axis. K: steps imagined or replayed, B: batch, H: value heads, S: width of the latent state.
"""

import itertools
from functools import lru_cache
from typing import NamedTuple

import torch as th
from torch.nn import functional as F


def value_estimate(
    rewards: th.Tensor,
    intrinsic: th.Tensor,
    next_values: th.Tensor,
    gamma: float,
    weight_decay: float = 0.97,
    continues: th.Tensor | None = None,
) -> th.Tensor:
    r"""
    V_est of Eq. 3 (4.3.1), with Q(s_k, a_k, z) = r_k + gamma V(s_{k+1}, z) as in the paper's code:

    .. math:: v_k = \sum_{j \le k} \gamma^j (r_j + r'_j) + \gamma^{k+1} V(s_{k+1}, z), \qquad
              V_{est} = \sum_k w^k v_k / \sum_k w^k

    :param rewards: r_k, imagined, (K, B)
    :param intrinsic: r'_k, terms of the variational bound that belong to step k, (K, B)
    :param next_values: V(s_{k+1}, z) of each head, (K, H, B)
    :param gamma: discount factor
    :param weight_decay: w, weight of each further step in the mean
    :param continues: probability that the episode goes on after step k, (K, B); None: it always does. What lies behind
        a termination counts for nothing.
    :return: (H, B)
    """
    n_steps, _, batch = next_values.shape
    assert rewards.shape == intrinsic.shape == (n_steps, batch), (rewards.shape, intrinsic.shape, next_values.shape)
    gains = rewards + intrinsic
    if continues is not None:
        alive = list(itertools.accumulate(continues, th.mul))  # probability that what is behind step k is reached
        gains = gains * th.stack([th.ones_like(alive[0]), *alive[:-1]])
        next_values = next_values * th.stack(alive).unsqueeze(1)
    gain_weights, value_weights = _step_weights(n_steps, gamma, weight_decay, gains.dtype, gains.device)
    bootstraps = value_weights @ next_values.flatten(1)
    return gain_weights @ gains + bootstraps.view(next_values.shape[1:])


@lru_cache(maxsize=16)
def _step_weights(
    n_steps: int, gamma: float, weight_decay: float, dtype: th.dtype, device: th.device
) -> tuple[th.Tensor, th.Tensor]:
    """
    Eq. 3 is linear in rewards and values: r_j is in all v_k with k >= j.

    :return: weight of r_j + r'_j, and of V(s_{k+1}, z), each (K,)
    """
    shares = [weight_decay**k for k in range(n_steps)]
    gain_weights = [gamma**j * sum(shares[j:]) / sum(shares) for j in range(n_steps)]
    value_weights = [gamma ** (k + 1) * shares[k] / sum(shares) for k in range(n_steps)]
    with th.inference_mode(False):  # they are kept, and may be needed for a gradient
        return th.tensor(gain_weights, dtype=dtype, device=device), th.tensor(value_weights, dtype=dtype, device=device)


class ModelTargets(NamedTuple):
    """What the replayed steps are compared with; nothing here carries a gradient. M: steps that the heads learn from, of K."""

    #: f(o_{t+1}) by the target encoder, (K, B, S)
    states: th.Tensor
    #: 1 where the step belongs to the segment's episode, (K, B)
    mask: th.Tensor
    #: reward of each step, (M, B)
    rewards: th.Tensor
    #: V_est(o_{t+1}, z) by the target networks, 0 after a termination, (M, B)
    values: th.Tensor
    #: 1 where the episode terminated (not: was truncated) at the step, (M, B)
    terminated: th.Tensor
    #: the mask of the heads' steps, (M, B)
    head_mask: th.Tensor


def model_losses(
    states: th.Tensor,
    rewards: th.Tensor,
    values: th.Tensor,
    termination_logits: th.Tensor | None,
    targets: ModelTargets,
) -> tuple[dict[str, th.Tensor], th.Tensor]:
    """
    The terms of Eq. 4 (4.3.1), unweighted, and the model's error at each step of the horizon.

    Squared errors are meaned over features and batch and summed over time / number of steps; steps after the episode's end
    are masked. The value's term compares V(s_{t+1}, z) with (1 - done) V_est(o_{t+1}, z), to which the paper's
    Q(s, a, z) - (r + gamma (1 - done) V_est) reduces, up to the reward's own error, when Q is written as r + gamma V.

    :param states: replayed s_{t+1}, (K, B, S)
    :param rewards: predicted rewards, (M, B)
    :param values: V(s_{t+1}, z) of each head, (H, M, B)
    :param termination_logits: logits of terminating at the step, (M, B), or None: not modelled
    :param targets: see :class:`ModelTargets`
    :return: losses by name, and the mean squared state error of each step, (K,)
    """
    mask, head_mask = targets.mask, targets.head_mask
    assert states.shape == targets.states.shape and states.shape[:2] == mask.shape, (states.shape, mask.shape)
    assert rewards.shape == targets.rewards.shape == head_mask.shape, (rewards.shape, head_mask.shape)
    assert values.shape[1:] == targets.values.shape == head_mask.shape, (values.shape, head_mask.shape)

    def mean(errors: th.Tensor) -> th.Tensor:
        return (errors * head_mask).sum() / head_mask.numel()

    state_errors = (states - targets.states).square().mean(dim=-1) * mask  # (K, B)
    losses = {
        "consistency": state_errors.sum() / mask.numel(),
        "reward": mean((rewards - targets.rewards).square()),
        "value": mean((values - targets.values).square()),
    }
    if termination_logits is not None:
        entropy = F.binary_cross_entropy_with_logits(termination_logits, targets.terminated, reduction="none")
        losses["termination"] = mean(entropy)
    return losses, state_errors.detach().sum(dim=1) / mask.sum(dim=1).clamp_min(1.0)


def actor_loss(value_estimates: th.Tensor) -> th.Tensor:
    """
    The actor maximises V_est of the first head (4.3.1); entropy and posterior terms are inside V_est.

    :param value_estimates: (H, B), differentiable with respect to the imagined actions
    :return: 0-d tensor
    """
    return -value_estimates[0].mean()


def choice_loss(log_probs: th.Tensor, value_estimates: th.Tensor, baseline: th.Tensor) -> th.Tensor:
    """
    The weights of a mixture policy maximise V_est of the first head by likelihood ratios, see :mod:`sb3_rpg.mixture`.

    The baseline is the state's value and the mean advantage of the rest of the batch, neither of which depends on the
    sample's own actions: the gradient stays unbiased.

    :param log_probs: log p(a|s,z) of imagined actions, differentiable with respect to the weights alone, (K, B)
    :param value_estimates: (H, B), a target, no gradient passes
    :param baseline: V(s_t, z) of the states that were imagined from, (B,)
    :return: 0-d tensor
    """
    advantages = (value_estimates[0] - baseline).detach()
    if len(advantages) > 1:
        advantages = (advantages - advantages.mean()) * (len(advantages) / (len(advantages) - 1))
    return -(advantages * log_probs.sum(dim=0)).mean()


def entropy_coefficient_loss(log_coefficient: th.Tensor, log_prob: th.Tensor, target_entropy: float) -> th.Tensor:
    """
    Raises alpha where the policy's entropy is below its target, lowers it where it is above (Appendix A).

    :param log_coefficient: log alpha, (1,)
    :param log_prob: log pi(a|s,z) of imagined actions, any shape
    :param target_entropy: in nats
    :return: 0-d tensor
    """
    return -(log_coefficient.exp() * (log_prob.mean() + target_entropy).detach()).sum()


def latent_temperature_step(temperature: th.Tensor, entropy: th.Tensor, target_entropy: float, rate: float = 0.1) -> th.Tensor:
    """
    alpha_z moved to where pi(z|s1) has its target entropy: by a tenth at most, in proportion within a nat of it. q is in
    units of V_est, which differ from task to task and while one is learned: no number fits all. The paper decays the
    entropy by hand.

    :param temperature: alpha_z, 0-d
    :param entropy: of pi(z|s1), mean over a batch, 0-d
    :param target_entropy: in nats
    :param rate: log alpha_z's step, a nat away from the target and further
    :return: alpha_z, 0-d
    """
    return (temperature * (rate * (target_entropy - entropy).clamp(-1.0, 1.0)).exp()).clamp(1e-6, 1e6)


def posterior_loss(log_prob: th.Tensor) -> th.Tensor:
    """
    Maximum likelihood of z given the policy's own imagined (s, a), which tightens the bound of Eq. 2.

    :param log_prob: log p_phi(z|s,a), any shape
    :return: 0-d tensor
    """
    return -log_prob.mean()


def category_value_loss(category_values: th.Tensor, chosen: th.Tensor, value: th.Tensor, weight: th.Tensor) -> th.Tensor:
    """
    q(s1, c) is regressed on V_est(s1, c) of the category that was drawn; pi(z|s1), the softmax of q / alpha_z, then is the
    maximiser of V_est - alpha_z log pi(z|s1) in closed form (4.2, the term outside of the sum over time).

    :param category_values: q(s1, .), (B, n_categories)
    :param chosen: one-hot category that was drawn, (B, n_categories)
    :param value: V_est(s1, z), (B,); a target, no gradient passes
    :param weight: weights of the mean over the batch, (B,)
    :return: 0-d tensor
    """
    predicted = (category_values * chosen).sum(dim=-1)
    return ((predicted - value.detach()).square() * weight).sum()
