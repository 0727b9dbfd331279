"""The contracts: everything that crosses a boundary of the service, as pydantic models."""
