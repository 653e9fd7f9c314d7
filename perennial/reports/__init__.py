"""Pages and tables a person reads, rendered from contract values."""
