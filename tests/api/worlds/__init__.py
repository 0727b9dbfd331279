"""Seeded worlds of the doors: users, processes that crash, answers that are lost, and an oracle."""
