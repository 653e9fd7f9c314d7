"""What is done to tables of rows: checks, splits, features, encoding. Frames in, frames out."""
