"""A simulator of Phi-3 endpoints: contracts, quotas, faults. For trying out, tests and benchmarks.

async with simulate(Settings(profile="github-models", seed=7)) as endpoint:
    ...  # ask endpoint.url, then look at endpoint.stats()
"""

from .answers import completion, embedding, image_content
from .counts import row_key
from .faults import Rule, When, read_rules
from .limits import Limits
from .profiles import Model
from .server import Endpoint, simulate
from .settings import Settings

__all__ = [
    "Endpoint",
    "Limits",
    "Model",
    "Rule",
    "Settings",
    "When",
    "completion",
    "embedding",
    "image_content",
    "read_rules",
    "row_key",
    "simulate",
]
