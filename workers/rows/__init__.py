"""From lines of input to requests, and from outcomes to lines of output: decisions without I/O."""
