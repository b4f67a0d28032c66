"""
The start-up hook: makes RL Zoo know RPG right after ``pip install``, without any flag.

RL Zoo has no plugin interface, and fixes the choices of ``--algo`` before it imports what ``--gym-packages`` names.
Hence installing this project copies this file to site-packages as ``_sb3_rpg_zoo_hook.py``, beside a ``.pth`` and a
``.start`` file that call :func:`install` whenever the interpreter starts. That only puts a finder on
``sys.meta_path``, which waits for three modules of RL Zoo; an interpreter that never imports the Zoo never imports
this project either.

It runs in *every* start of the interpreter, therefore: import nothing but ``os`` and ``sys`` at the top, and never raise.
Set the environment variable ``SB3_RPG_ZOO_HOOK=0`` to switch it off.
"""

import os
import sys

TYPE_CHECKING = False  # as type checkers know it; importing `typing` would take longer than all else here
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

SWITCH = "SB3_RPG_ZOO_HOOK"
ZOO_MODULES = ("rl_zoo3.utils", "rl_zoo3.hyperparams_opt", "rl_zoo3.exp_manager")


class ZooFinder:
    """
    A finder that finds nothing itself: it takes the spec that the other finders give for a module of RL Zoo,
    and sees to it that the module is patched once it has been executed.
    """

    def __init__(self) -> None:
        self._searched: set[str] = set()
        self._warned = False

    def find_spec(
        self, fullname: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """
        :param fullname: the name of the module to import
        :param path: where to look, for a module in a package
        :param target: the module to reload, if any
        :return: the spec found by another finder, with a loader that patches; None for all but RL Zoo's modules
        """
        # The other finders may search through `importlib`, which asks this one again
        if fullname not in ZOO_MODULES or fullname in self._searched:
            return None
        self._searched.add(fullname)
        try:
            for finder in sys.meta_path:
                # As `importlib` does, pass over finders of the old kind
                find_spec = getattr(finder, "find_spec", None) if finder is not self else None
                spec = find_spec(fullname, path, target) if find_spec is not None else None
                if spec is not None:
                    if spec.loader is not None:
                        self._patch_after_execution(spec.loader, fullname)
                    return spec
        except Exception as error:
            self._warn(error)
        finally:
            self._searched.discard(fullname)
        return None

    def _patch_after_execution(self, loader: "Loader", fullname: str) -> None:
        execute = loader.exec_module

        def exec_module(module: "ModuleType") -> None:
            execute(module)
            # One loader may serve many modules, as that of a zip archive does
            if module.__name__ == fullname:
                try:
                    from sb3_rpg.zoo.registration import patch_module

                    patch_module(module)
                except Exception as error:
                    self._warn(error)

        # On the instance rather than in a class around it: the loader keeps its type, its source and its resources
        loader.exec_module = exec_module  # type: ignore[method-assign]

    def _warn(self, error: Exception) -> None:
        if self._warned:
            return
        self._warned = True
        message = (
            f"sb3_rpg could not register itself with RL Zoo ({type(error).__name__}: {error}). RL Zoo works as if sb3_rpg "
            f"were not installed. Reinstall sb3_rpg, or set {SWITCH}=0 to switch this hook off."
        )
        try:
            import warnings

            warnings.warn(message, RuntimeWarning, stacklevel=2)
        except Warning:
            # Where warnings are errors, this one must still not break the import of RL Zoo
            print(message, file=sys.stderr)


def install() -> None:
    """Put the finder on ``sys.meta_path``, once, unless it is switched off."""
    if os.environ.get(SWITCH) == "0":
        return
    # By name: this file can be loaded twice, from site-packages and from the package
    if not any(type(finder).__name__ == "ZooFinder" for finder in sys.meta_path):
        sys.meta_path.insert(0, ZooFinder())
