"""Why does a setting that is to hold a secret hold none?"""

from typing import Final

# What Azure leaves in a setting whose reference to a secret it could not resolve.
_REFERENCE: Final = "@Microsoft.KeyVault("


def unresolved(value: str) -> str | None:
    """What is wrong with a reference that Azure left as a setting's value, as the end of a
    sentence; None where the value is none.
    """
    if not value.startswith(_REFERENCE):
        return None
    return (
        "holds a reference to Key Vault that Azure could not resolve: put the secret into the "
        "vault, or let the app's identity read it"
    )


def no_secret(value: str) -> str | None:
    """What is wrong with a setting's value, as the end of a sentence; None where it may be one."""
    if not value.strip():
        return "is missing or empty: put the secret there"
    return unresolved(value)
