"""From a shard's message to its receipt."""
