"""
Registers the project with RL Zoo.

:func:`patch_module` patches one module of RL Zoo; the start-up hook calls it as soon as that module has been executed,
that is before anything else of the Zoo sees it. :func:`register` does all three at any time.
Everything is safe to repeat, and nothing that RL Zoo or the user has set is overridden.
"""

import functools
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from sb3_rpg.zoo.config import default_config
from sb3_rpg.zoo.sampler import convert_rpg_params, sample_rpg_params

PATCHED = "_sb3_rpg_patched"


def register() -> None:
    """
    Make RL Zoo know ``rpg`` and ``sac_rnd``, their hyperparameters and search spaces, and our environments.

    Needed only where the start-up hook does not run (see :mod:`sb3_rpg.zoo.startup_hook`): in a checkout on
    ``PYTHONPATH``, after ``pip install --target``, or with ``SB3_RPG_ZOO_HOOK=0``.

    :raises ImportError: if RL Zoo or a package that it needs is missing
    """
    for name in _PATCHES:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ImportError(
                f"RL Zoo cannot be imported, the module {error.name!r} is missing: run `pip install 'sb3_rpg[zoo]'`."
            ) from error
        patch_module(module)


def patch_module(module: ModuleType) -> None:
    """
    Patch one module of RL Zoo, just executed.

    :param module: ``rl_zoo3.utils``, ``rl_zoo3.hyperparams_opt`` or ``rl_zoo3.exp_manager``
    """
    _PATCHES[module.__name__](module)


def _patch_utils(utils: ModuleType) -> None:
    # Also registers our environments with gymnasium
    import sb3_rpg

    utils.ALGOS.setdefault("rpg", sb3_rpg.RPG)
    # SAC as it is; hyperparams/sac_rnd.yml gives it the intrinsic reward
    utils.ALGOS.setdefault("sac_rnd", utils.ALGOS["sac"])
    _make_evaluable(utils)


def _patch_samplers(hyperparams_opt: ModuleType) -> None:
    samplers, converters = hyperparams_opt.HYPERPARAMS_SAMPLER, hyperparams_opt.HYPERPARAMS_CONVERTER
    samplers.setdefault("rpg", sample_rpg_params)
    converters.setdefault("rpg", convert_rpg_params)
    samplers.setdefault("sac_rnd", samplers["sac"])
    converters.setdefault("sac_rnd", converters["sac"])


def _patch_exp_manager(exp_manager: ModuleType) -> None:
    _make_evaluable(exp_manager)
    manager = exp_manager.ExperimentManager
    if not getattr(manager.__init__, PATCHED, False):
        manager.__init__ = _with_default_config(manager.__init__, _zoo_folder(exp_manager))


def _make_evaluable(module: ModuleType) -> None:
    # RL Zoo evaluates strings of hyperparameter files and of `-params` in its own namespaces: with the name there,
    # they can say `sb3_rpg.intrinsic.IntrinsicReplayBuffer`
    import sb3_rpg

    module.__dict__.setdefault("sb3_rpg", sb3_rpg)


def _zoo_folder(exp_manager: ModuleType) -> Path:
    # Like RL Zoo: inside the package when installed, beside it in a checkout
    assert exp_manager.__file__ is not None
    package = Path(exp_manager.__file__).parent
    folder = package / "hyperparams"
    return folder if folder.is_dir() else package.parent / "hyperparams"


def _with_default_config(init: Callable[..., None], zoo_folder: Path) -> Callable[..., None]:
    signature = inspect.signature(init)

    @functools.wraps(init)
    def init_with_default_config(*args: Any, **kwargs: Any) -> None:
        bound = signature.bind(*args, **kwargs)
        if not bound.arguments.get("config"):
            path = default_config(bound.arguments["algo"], bound.arguments["env_id"], zoo_folder)
            if path is not None:
                bound.arguments["config"] = str(path)
        init(*bound.args, **bound.kwargs)

    setattr(init_with_default_config, PATCHED, True)
    return init_with_default_config


_PATCHES: dict[str, Callable[[ModuleType], None]] = {
    "rl_zoo3.utils": _patch_utils,
    "rl_zoo3.hyperparams_opt": _patch_samplers,
    "rl_zoo3.exp_manager": _patch_exp_manager,
}
