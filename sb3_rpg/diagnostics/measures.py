"""
What tells a healthy run from one that goes wrong: numbers, as pure functions over tensors.

They know neither networks nor environments. K: steps of a segment, T: rows of a block, B: batch, N: latents, S: width of
the latent state.
"""

import math
from collections.abc import Mapping, Sequence

import torch as th

#: tau of :func:`information`: 1 for a posterior whose spread is right, less for one that is given too small a spread
TEMPERATURES = tuple(2.0**-k for k in range(9))


def posterior_bound(matched: th.Tensor, latent_entropy: th.Tensor) -> th.Tensor:
    """
    I(z; s, a) >= E[log p_phi(z|s,a)] + H(z), the variational bound that the beta term maximises (4.2).

    A posterior of fixed spread that knows nothing gives less than 0; :func:`information` does not.

    :param matched: log p_phi(z|s,a) of the z that (s, a) were made with, (B,)
    :param latent_entropy: entropy of pi(z|s1), any shape
    :return: in nats, 0-d
    """
    return matched.mean() + latent_entropy.mean()


def information(matched: th.Tensor, unmatched: th.Tensor) -> th.Tensor:
    r"""
    I(z; s, a) in nats, whatever spread the posterior is given: the bound of InfoNCE (van den Oord et al. 2018), which asks
    which of M + 1 (s, a) a z belongs to, with tau log p_phi(z|s,a) as its critic, at the best tau,

    .. math:: \max_\tau E[\log \frac{p^\tau(z|s,a)}{\frac{1}{M+1} (p^\tau(z|s,a) + \sum_j p^\tau(z|s_j,a_j))}].

    Its exponential is how many modes can be told apart. 0 where (s, a) tell nothing, log(M + 1) at most.

    :param matched: log p_phi(z|s,a) of the z that (s, a) were made with, (B,)
    :param unmatched: log p_phi(z|s_j,a_j) of the same z and of M other steps, (B, M)
    :return: 0-d
    """
    scores = th.cat([matched.unsqueeze(1), unmatched], dim=1)  # (B, M + 1)
    bounds = [(tau * matched - th.logsumexp(tau * scores, dim=1)).mean() + math.log(scores.shape[1]) for tau in TEMPERATURES]
    return th.stack(bounds).max().clamp_min(0.0)


def spread_over_latents(values: th.Tensor) -> th.Tensor:
    """
    :param values: of N latents at each of B states, (N, B) or (N, B, d)
    :return: root mean square over states and dimensions of the standard deviation over latents, 0-d
    """
    return values.var(dim=0, correction=0).mean().sqrt()


def shares_of_spread(terms: Mapping[str, th.Tensor]) -> dict[str, th.Tensor]:
    """
    What moves the policy is how much a term of the reward differs between steps: a constant changes no decision.

    :param terms: terms of the reward by name, each (B,)
    :return: the standard deviation of each as a share of their sum; 0 for all where nothing varies
    """
    stds = {name: term.std(correction=0) for name, term in terms.items()}
    total = th.stack(list(stds.values())).sum()
    return {name: std / total.clamp_min(1e-12) for name, std in stds.items()}


def state_errors(predicted: th.Tensor, real: th.Tensor, mask: th.Tensor) -> th.Tensor:
    """
    Error of the model's rollout at each step, in units of the variance of the states: 0 is perfect, 1 no better than the mean.

    :param predicted: states of the rollout, (K, B, S)
    :param real: encoded next observations, (K, B, S)
    :param mask: 1 where the step belongs to the segment's episode, (K, B)
    :return: (K,), NaN at steps that no segment reaches, and where the states do not differ
    """
    squared = ((predicted - real).square().mean(dim=-1) * mask).sum(dim=1) / mask.sum(dim=1)
    kept = real[mask > 0]
    variance = kept.var(dim=0, correction=0).mean()
    return squared / th.where(variance > 1e-6 * kept.square().mean(), variance, th.full_like(variance, th.nan))


def return_bias(imagined: th.Tensor, real: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """
    Imagined against real returns of the same actions.

    :param imagined: (B,)
    :param real: (B,)
    :return: mean difference and root mean square difference, both in standard deviations of the real returns; NaN where these
        do not differ, so that nothing can be judged
    """
    spread = real.std(correction=0)
    spread = th.where(spread > 1e-6 * (1.0 + real.abs().max()), spread, th.full_like(spread, th.nan))
    difference = imagined - real
    return difference.mean() / spread, difference.square().mean().sqrt() / spread


def discounted_sum(rewards: th.Tensor, mask: th.Tensor, gamma: float) -> th.Tensor:
    """
    :param rewards: (K, B)
    :param mask: 1 where the step counts, (K, B)
    :param gamma: discount factor
    :return: (B,)
    """
    weights = gamma ** th.arange(len(rewards), device=rewards.device, dtype=rewards.dtype)
    return (weights.unsqueeze(-1) * rewards * mask).sum(dim=0)


def returns_to_go(rewards: th.Tensor, terminated: th.Tensor, last: th.Tensor, gamma: float) -> tuple[th.Tensor, th.Tensor]:
    """
    Discounted rewards that really came after each step, as far as the episode is known.

    :param rewards: of consecutive steps, (T, B)
    :param terminated: 1 where the episode terminated with the step, (T, B)
    :param last: True where the next row is another episode's or there is none, (T, B)
    :param gamma: discount factor
    :return: the sums, and the weight that what came after the known part has in a return: 0 where the episode terminated, else
        gamma to the number of steps; both (T, B)
    """
    sums, weights = th.empty_like(rewards), th.empty_like(rewards)
    following, weight = th.zeros_like(rewards[0]), th.ones_like(rewards[0])
    for t in reversed(range(len(rewards))):
        following = th.where(last[t], th.zeros_like(following), following)
        weight = th.where(last[t], th.ones_like(weight), weight)
        discount = gamma * (1.0 - terminated[t])
        following, weight = rewards[t] + discount * following, discount * weight
        sums[t], weights[t] = following, weight
    return sums, weights


def reached_value(sums: th.Tensor, weights: th.Tensor) -> th.Tensor:
    """
    The mean value of the states that were visited, by rewards alone: where an episode was cut, it is taken to go on as
    episodes do on average, so that value = mean(sums + weights * value). V, bootstrapped over time limits, means the same.

    :param sums: see :func:`returns_to_go`
    :param weights: see :func:`returns_to_go`
    :return: mean(sums) / mean(1 - weights), 0-d; NaN where nothing is discounted and nothing terminates
    """
    known = (1.0 - weights).mean()
    return sums.mean() / th.where(known > 1e-5, known, th.full_like(known, th.nan))


def relative_bias(values: th.Tensor, reached: th.Tensor, sums: th.Tensor) -> th.Tensor:
    """
    :param values: V(s, z) of the same steps, any shape
    :param reached: see :func:`reached_value`
    :param sums: see :func:`returns_to_go`
    :return: by how much the values exceed what was reached, in units of |reached| + std(sums), 0-d. Values that have not been
        learned yet, 0 everywhere, are at most 1 too high.
    """
    return (values.mean() - reached) / (reached.abs() + sums.std(correction=0)).clamp_min(1e-8)


def progress(returns: Sequence[float]) -> float:
    """
    How far the returns have risen lately.

    :param returns: of episodes, oldest first
    :return: mean of the last third less mean of the first third, in standard deviations of all; NaN with fewer than 12
        episodes; 0 where all returns are alike
    """
    n = len(returns)
    if n < 12:
        return float("nan")
    values = th.tensor(returns, dtype=th.float64)
    spread = values.std(correction=0)
    rise = values[-(n // 3) :].mean() - values[: n // 3].mean()
    return float(rise / spread) if spread > 1e-9 * (1.0 + values.abs().max()) else 0.0
