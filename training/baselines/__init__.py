"""Opponents, one module a method; see `training.evaluation.methods`."""
