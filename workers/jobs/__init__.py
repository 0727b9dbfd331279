"""What is stored of a job, and the one way it changes."""
