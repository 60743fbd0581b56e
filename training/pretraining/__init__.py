"""Pre-training of the embedded LLM: a small OPT that learns to read injected tokens from synthetic worlds."""
