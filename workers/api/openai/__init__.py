"""The OpenAI Batch API as a door: what its clients ask for, done with files and jobs."""
