"""Benchmarks beside peers, all in one run: single times move with the machine, ratios hold."""
