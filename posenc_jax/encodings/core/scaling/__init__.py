"""Context extension of RoPE: formulas of frequencies, and the rope types by name."""
