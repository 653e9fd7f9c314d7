"""Runnable comparisons; results as ratios of runs on the same machine."""
