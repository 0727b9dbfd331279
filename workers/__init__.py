"""The workers: what turns a file into answers."""
