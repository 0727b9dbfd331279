"""Files that came over HTTP: what is stored of them, and when they go."""
