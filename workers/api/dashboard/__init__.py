"""The dashboard: a page of static files, which asks the operations under `/api`."""
