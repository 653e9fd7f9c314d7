"""I/O behind small interfaces: sources, tables, the registry, files of a project."""
