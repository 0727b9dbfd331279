"""The command line: from a file or a table to a batch, and from its answers to a table again."""
