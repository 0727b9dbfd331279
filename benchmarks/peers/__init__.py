"""Other programs that ask a model in bulk, beside this service: `python -m benchmarks.peers`."""
