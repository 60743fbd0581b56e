"""An LLM whose own weights learn to rank the titles of a catalogue (ADR 26)."""
