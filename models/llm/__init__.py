"""The frozen LLM: loading it, its interface for injected tokens, and exact forward passes over choice tries."""
