"""Pre-training of the embedded LLM: a small OPT that learns to read injected tokens from synthetic preferences.

`initialisation` builds the model, `circuit` what it can do before training; `prompts` draws what it is trained on,
`objective` says what is asked of it, `pretrain` runs the stage and `evaluate` measures it. docs/embedded-llm.md tells
the whole.
"""
