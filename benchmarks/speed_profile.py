"""Where an update's time goes: torch's profiler, its operations by kind."""

from __future__ import annotations

import time
from collections import defaultdict

from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch.profiler import ProfilerActivity, profile

#: kinds of operation by the names that they begin with; the first that fits counts
KINDS = {
    "matrix products": (
        "aten::mm",
        "aten::addmm",
        "aten::bmm",
        "aten::baddbmm",
        "mkldnn::_linear_pointwise",
        "aten::mkldnn_linear",
    ),
    "optimisers, clipping, target networks": (
        "aten::_fused_adam",
        "aten::lerp_",
        "aten::_foreach",
        "aten::linalg_vector_norm",
        "Optimizer",
    ),
    "copies and conversions": ("aten::copy_", "aten::cat", "aten::stack", "aten::clone", "aten::_to_copy"),
    "elementwise, reductions, indexing": ("aten::",),
}
BOOKKEEPING = "Python, autograd, sampling"


def kind_of(operation: str) -> str:
    """
    :param operation: its name in the profile
    :return: a key of :data:`KINDS`, or :data:`BOOKKEEPING`
    """
    for kind, prefixes in KINDS.items():
        if operation.startswith(prefixes):
            return kind
    return BOOKKEEPING


def time_by_kind(model: OffPolicyAlgorithm, n_updates: int) -> dict[str, float]:
    """
    The profiler slows operations down, so that it tells their shares only; these are put on the time of updates without it.

    :param model: with a filled replay buffer
    :param n_updates: how many to average over, a multiple of RPG's ``policy_delay``
    :return: seconds of an update by kind of operation
    """
    model.train(2, model.batch_size)
    start = time.perf_counter()
    model.train(n_updates, model.batch_size)
    seconds = (time.perf_counter() - start) / n_updates
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        start = time.perf_counter()
        model.train(n_updates, model.batch_size)
        traced = (time.perf_counter() - start) / n_updates
    spent: dict[str, float] = defaultdict(float)
    for event in profiled.key_averages():
        if kind_of(event.key) != BOOKKEEPING:
            spent[kind_of(event.key)] += event.self_cpu_time_total / 1e6 / n_updates
    spent[BOOKKEEPING] = max(traced - sum(spent.values()), 0.0)
    return {kind: value / traced * seconds for kind, value in spent.items()}
