"""Benchmarks of sb3_rpg; start them from the root of a checkout with ``python3 -m benchmarks.<name>``."""
