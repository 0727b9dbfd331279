"""Decisions: no I/O, no await, no clock, environment or randomness of their own."""
