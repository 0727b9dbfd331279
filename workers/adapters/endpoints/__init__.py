"""Phi-3 endpoints in whatever contract they speak, behind the port `Endpoint`."""

from workers.adapters.endpoints.connection import connect

__all__ = ["connect"]
