"""Names that are also ours, for tests of columns that are called so."""

from __future__ import annotations

OURS = (
    "again", "agree", "apart", "arm", "b", "batch", "before", "c", "changed", "class", "code",
    "content", "contradicts", "copies", "e", "event_time", "every", "failed", "far", "file_index",
    "file_row_number", "filename", "given", "h", "hashed", "here", "id", "identity", "index", "k",
    "k0", "k1", "kept", "key", "label", "m0", "mean", "minus", "ms", "n", "new_rows", "newest",
    "number", "o", "old_rows", "p", "pairs", "passed", "place", "plus", "r", "reason", "received",
    "row", "rows", "s", "share", "stray", "suspect", "t", "taken", "todo", "total", "unit", "value",
)  # fmt: skip
"""What our own SQL and frames call tables and columns of theirs."""
