"""The user's model.yaml: its schema, and reading it with errors a person can act on."""

from perennial.spec.reading import kept_spec, load_spec, parse_spec, spec_text
from perennial.spec.schema import ModelSpec

__all__ = ["ModelSpec", "kept_spec", "load_spec", "parse_spec", "spec_text"]
