"""A model's past, walked through again: what was known at each moment, and what would have been."""

from perennial.stores.hindsight.past import Past, read_past
from perennial.stores.hindsight.plan import plan_backtest
from perennial.stores.hindsight.walking import walk_past

__all__ = ["Past", "plan_backtest", "read_past", "walk_past"]
