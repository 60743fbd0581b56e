"""Users and items injected into lists of titles (ADR 22)."""
