"""One deployable Prefect flow a file: order, condition, concurrency."""
