"""Frozen, typed values that every layer shares. Nothing here does work."""
