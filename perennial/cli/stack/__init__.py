"""The embedded stack: Prefect server, worker and serving of one project, as processes."""
