"""Which deployments does a simulated endpoint stand for? DEPLOYMENTS for each profile."""

import json
import secrets
from typing import Any

from local.endpoint.limits import Limits
from local.endpoint.profiles import Model, ProfileName

KEY_SETTING = "SIMULATOR_KEY"
# As invented as the answers: what a run costs is shown before anything real is asked.
PRICE = {"input": "0.13", "output": "0.52", "currency": "USD"}
CHAT_MODEL = "Phi-3-mini-4k-instruct"
EMBED_MODEL = "simulated-embed"
IMAGE_MODEL = "simulated-image-embed"
# A model says of itself that it does one kind of thing (`GET /info`, model_type): one model each.
MODELS = tuple(
    Model.parse(each)
    for each in (CHAT_MODEL, f"{EMBED_MODEL}:embeddings", f"{IMAGE_MODEL}:image-embeddings")
)


def new_key() -> str:
    """A key that nobody else has, so that one run cannot spend another's quota by mistake."""
    return secrets.token_urlsafe(24)


def settings_for(profile: ProfileName, limits: Limits, url: str, key: str) -> dict[str, str]:
    """The settings with which the function app calls a simulator at `url`."""
    quota = {name: getattr(limits, name) or None for name in _QUOTAS}
    common: dict[str, Any] = {"auth": "key", "key_setting": KEY_SETTING, "price": PRICE}
    common |= {name: limit for name, limit in quota.items() if limit}
    contexts = {each.name: {"context_length": each.context} for each in MODELS if each.context}
    deployments = [
        common | contexts.get(each["model"], {}) | each for each in _deployments(profile, url)
    ]
    return {"DEPLOYMENTS": json.dumps(deployments), KEY_SETTING: key}


_QUOTAS = (
    "requests_per_minute",
    "tokens_per_minute",
    "requests_per_day",
    "max_tokens_per_request",
    "max_concurrency",
)


def _deployments(profile: ProfileName, url: str) -> list[dict[str, Any]]:
    chat: dict[str, Any] = {"name": "phi-3-mini", "model": CHAT_MODEL}
    embed: dict[str, Any] = {"name": "embed", "model": EMBED_MODEL, "tasks": ["embeddings"]}
    if profile in ("azure-openai", "openai"):
        base = {"kind": profile, "url": url if profile == "azure-openai" else f"{url}/v1"}
        return [chat | base | {"tasks": ["chat", "completions"]}, embed | base]
    own = f"{url}/endpoints"
    images = {"name": "image-embed", "model": IMAGE_MODEL, "tasks": ["image-embeddings"]}
    if profile == "managed-online":
        chat |= {"kind": "aml-score", "url": f"{own}/{CHAT_MODEL}/score"}
    else:
        chat |= {"kind": "model-inference", "url": f"{own}/{CHAT_MODEL}"}
        chat |= {"tasks": ["chat", "completions"]}
    return [
        chat,
        embed | {"kind": "model-inference", "url": f"{own}/{EMBED_MODEL}"},
        images | {"kind": "model-inference", "url": f"{own}/{IMAGE_MODEL}"},
    ]
