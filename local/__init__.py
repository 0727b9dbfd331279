"""Stands in for Azure on one machine: for trying out, tests and benchmarks; never deployed."""
