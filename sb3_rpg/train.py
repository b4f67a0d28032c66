"""
``python -m sb3_rpg.train``: RL Zoo's ``python -m rl_zoo3.train``, with our algorithms and environments registered.

The same command line. For installations without the start-up hook, see :mod:`sb3_rpg.zoo.startup_hook`.
"""

from sb3_rpg.zoo import register


def main() -> None:
    """Register with RL Zoo, then hand over to its training command."""
    register()
    from rl_zoo3.train import train

    train()


if __name__ == "__main__":
    main()
