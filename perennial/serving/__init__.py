"""The inference service. Runs without Prefect, Optuna, Evidently and W&B."""
