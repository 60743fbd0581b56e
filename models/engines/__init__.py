"""LLM engines: one port, one module per implementation."""
