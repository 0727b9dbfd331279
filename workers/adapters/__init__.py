"""The ports over real services; nothing here decides anything."""
