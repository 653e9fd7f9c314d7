"""Pure functions that decide. No I/O, no clock, no global random state."""
