"""The user's model.yaml: its schema, and reading it with errors a person can act on."""

from perennial.spec.reading import load_spec, parse_spec, spec_text
from perennial.spec.schema import ModelSpec

__all__ = ["ModelSpec", "load_spec", "parse_spec", "spec_text"]
