"""From a file that is announced to a planned job."""
