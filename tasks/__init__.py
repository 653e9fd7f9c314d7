"""One step of a flow a file: load a reference, call a function, persist, return a reference."""
