"""What other servers and tools read, made from a bundle: files by their path, as bytes.

The same version gives the same bytes. Nothing of KServe, Triton or MLflow is imported.
"""
