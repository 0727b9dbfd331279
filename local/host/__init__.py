"""Runs `function_app.py` without Core Tools, as one instance of the Functions host would.

`loading` which functions are there and what their bindings are · `invoking` one invocation ·
`servicebus_triggers`, `blob_triggers`, `timer_triggers`, `http_triggers` what makes one begin ·
`singleton` which of several hosts does what only one may do · `connections` clients from settings ·
`serving` all of it together, until SIGTERM.
"""
