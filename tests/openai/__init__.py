"""The doors under /v1, asked by the `openai` package, in the versions that people have."""
