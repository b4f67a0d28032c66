"""
In which precision networks are trained.

Masters are float32 always: they act, are saved, and are what the optimisers step. Where the hardware multiplies bfloat16
faster, losses are computed on a *twin*, a copy of the networks in bfloat16: no tensor is cast on the way but at its two
ends, while autocast would cast every weight at every use, which for networks of this size costs as much as the products.
"""

import copy
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import torch as th
from torch import nn

PRECISIONS = ("auto", "bf16", "fp32")
Network = TypeVar("Network", bound=nn.Module)


def resolve_precision(precision: str, device: th.device) -> th.dtype:
    """
    :param precision: one of ``PRECISIONS``; "auto": bf16 on CPUs whose instructions multiply it faster (AMX, AVX512-BF16),
        else fp32. On a GPU, operations of this size take longer to launch than to compute, and bf16 needs more of them
    :param device: where the networks are
    :return: the dtype of matrix products
    """
    if precision == "fp32":
        return th.float32
    if precision == "bf16":
        return th.bfloat16
    if device.type == "cpu":
        # Without these instructions bf16 is emulated and slower than fp32. torch has no public query for them.
        queries = [getattr(th.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")]
        return th.bfloat16 if any(query is not None and query() for query in queries) else th.float32
    return th.float32


def autocast_context(dtype: th.dtype, device: th.device) -> th.autocast:
    """
    For modules that are not ours to copy, such as a user's features extractor.

    :param dtype: of matrix products
    :param device: where the networks are
    :return: a reusable context; does nothing for float32
    """
    return th.autocast(device.type, dtype=th.bfloat16, enabled=dtype == th.bfloat16)


class Twin(Generic[Network]):
    """
    A master network and its copy in the precision of training; for float32 the copy is the master itself.

    :param master: float32 network; optimisers that its modules hold as attributes are not copied
    :param dtype: precision of training
    :param shared: modules that stay float32 and are used by both, such as a user's features extractor
    """

    def __init__(self, master: Network, dtype: th.dtype, shared: Iterable[nn.Module] = ()):
        self.master = master
        self.network: Network = master
        self._pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        if dtype == th.float32:
            return
        optimizers = [
            value for module in master.modules() for value in vars(module).values() if isinstance(value, th.optim.Optimizer)
        ]
        memo: dict[int, object] = {id(optimizer): None for optimizer in optimizers}
        memo.update({id(module): module for module in shared})
        self.network = copy.deepcopy(master, memo)
        for own, twin in zip(master.parameters(), self.network.parameters(), strict=True):
            if own is not twin:
                twin.data = twin.data.to(dtype)
                self._pairs.append((own, twin))
        self._versions: list[int] = []
        self._index()

    def _index(self) -> None:
        self._of_master = {id(own): twin for own, twin in self._pairs}
        self._gradients: dict[int, th.Tensor] = {}  # float32, of each master, kept so that no update allocates them
        self._versions = []  # not known: the next refresh() copies

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._index()  # a copy's parameters have other identities, and their changes are counted anew

    def _master_versions(self) -> list[int]:
        return [own._version for own, _ in self._pairs]

    @th.no_grad()
    def refresh(self) -> None:
        """
        Follow masters that were changed from outside, by ``load``, ``set_parameters`` or by hand; in place, as PyTorch
        counts no change that is written to ``parameter.data``.
        """
        if self._pairs and self._versions != (versions := self._master_versions()):
            th._foreach_copy_([twin for _, twin in self._pairs], [own for own, _ in self._pairs])
            self._versions = versions

    def step(self, optimizer: th.optim.Optimizer, max_grad_norm: float = 0.0) -> th.Tensor:
        """
        Step masters by the gradients of the twin, and let the twin follow.

        :param optimizer: optimiser of some of the master's parameters; their gradients are cleared
        :param max_grad_norm: gradients are clipped to this norm together; 0: not
        :return: the norm before the clipping, 0 where it is not clipped
        """
        parameters: list[nn.Parameter] = optimizer.param_groups[0]["params"]
        if self._pairs:
            self._take_gradients(parameters)
        norm = _clip(parameters, max_grad_norm) if max_grad_norm > 0 else th.zeros(())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.follow(parameters)
        return norm

    @th.no_grad()
    def _take_gradients(self, parameters: list[nn.Parameter]) -> None:
        computed: list[th.Tensor] = []
        converted: list[th.Tensor] = []
        for own in parameters:
            twin = self._of_master.get(id(own))
            if twin is not None and twin.grad is not None:
                if id(own) not in self._gradients:
                    self._gradients[id(own)] = th.empty_like(own)
                own.grad = self._gradients[id(own)]
                converted.append(own.grad)
                computed.append(twin.grad)
                twin.grad = None
        if computed:
            th._foreach_copy_(converted, computed)

    @th.no_grad()
    def follow(self, parameters: Iterable[nn.Parameter]) -> None:
        """
        :param parameters: masters that have been changed
        """
        if self._pairs:
            own: list[th.Tensor] = [parameter for parameter in parameters if id(parameter) in self._of_master]
            th._foreach_copy_([self._of_master[id(parameter)] for parameter in own], own)
            self._versions = self._master_versions()


def _clip(parameters: list[nn.Parameter], max_norm: float) -> th.Tensor:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    # On a CPU it costs nothing to look, and less than to multiply all gradients by 1
    if norm.device.type != "cpu" or not norm <= max_norm:
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm
