"""Perennial: continuous training for tabular XGBoost models."""

__version__ = "0.1.0"
