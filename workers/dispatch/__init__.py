"""From a call to the right deployment, at the right time."""
