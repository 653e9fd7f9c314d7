"""The prediction log: every acknowledged prediction reaches its Delta table exactly once.

The server appends to local segments (``Spool``), which needs nothing but Arrow. Another process
commits them (``tables``) and keeps the tables in order (``upkeep``).
"""

from perennial.contracts.serving import SpoolLag
from perennial.stores.predictions.redaction import Redaction
from perennial.stores.predictions.segments import Record, read_segment
from perennial.stores.predictions.spool import Spool, SpoolFullError

__all__ = ["Record", "Redaction", "Spool", "SpoolFullError", "SpoolLag", "read_segment"]
