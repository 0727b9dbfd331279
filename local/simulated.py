"""Which deployments does a simulated endpoint stand for? DEPLOYMENTS for each profile."""

import json
import secrets
from typing import Any

from local.endpoint.limits import Limits
from local.endpoint.profiles import ProfileName

KEY_SETTING = "SIMULATOR_KEY"
CHAT_MODEL = "Phi-3-mini-4k-instruct"
EMBED_MODEL = "simulated-embed"


def new_key() -> str:
    """A key that nobody else has, so that one run cannot spend another's quota by mistake."""
    return secrets.token_urlsafe(24)


def settings_for(profile: ProfileName, limits: Limits, url: str, key: str) -> dict[str, str]:
    """The settings with which the function app calls a simulator at `url`."""
    quota = {name: getattr(limits, name) or None for name in _QUOTAS}
    common = {"auth": "key", "key_setting": KEY_SETTING} | {k: v for k, v in quota.items() if v}
    deployments = [common | each for each in _deployments(profile, url)]
    return {"DEPLOYMENTS": json.dumps(deployments), KEY_SETTING: key}


_QUOTAS = (
    "requests_per_minute",
    "tokens_per_minute",
    "requests_per_day",
    "max_tokens_per_request",
    "max_concurrency",
)


def _deployments(profile: ProfileName, url: str) -> list[dict[str, Any]]:
    chat = {"name": "phi-3-mini", "model": CHAT_MODEL}
    embed = {"name": "embed", "model": EMBED_MODEL}
    if profile == "azure-openai":
        base = {"kind": "azure-openai", "url": url}
        return [
            chat | base | {"tasks": ["chat", "completions"]},
            embed | base | {"tasks": ["embeddings"]},
        ]
    if profile == "openai":
        base = {"kind": "openai", "url": f"{url}/v1"}
        return [
            chat | base | {"tasks": ["chat", "completions"]},
            embed | base | {"tasks": ["embeddings"]},
        ]
    vectors = embed | {
        "kind": "model-inference",
        "url": f"{url}/endpoints/{EMBED_MODEL}",
        "tasks": ["embeddings", "image-embeddings"],
    }
    own = f"{url}/endpoints/{CHAT_MODEL}"
    if profile == "managed-online":
        return [chat | {"kind": "aml-score", "url": f"{own}/score"}, vectors]
    return [
        chat | {"kind": "model-inference", "url": own, "tasks": ["chat", "completions"]},
        vectors,
    ]
