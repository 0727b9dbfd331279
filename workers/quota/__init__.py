"""One quota, shared by any number of processes."""
