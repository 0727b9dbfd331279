"""One program for each peer, run by the interpreter of an environment that holds that peer."""
