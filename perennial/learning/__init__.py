"""Search, boosting, metrics: what turns a matrix into a model and measures it."""
