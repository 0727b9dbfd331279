"""What a webhook says, how it is signed, whom it may reach, and when it is tried again."""
