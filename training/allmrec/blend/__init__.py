"""Fits the default ranker: what each signal is worth to validation users, for well and for little known items."""
