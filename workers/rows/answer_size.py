"""How many bytes may the answer to a request have?"""

from collections.abc import Mapping
from typing import Any

from schemas.deployments import Task
from workers.rows.packing import count_inputs

# An embedding's number as JSON: -0.012345678901234567, and its comma.
_NUMBER_BYTES = 22
_BASE64_BYTES = 6
# What is usual where the row does not say: text-embedding-ada-002 and 3-small.
_DIMENSIONS = 1536
_TOKEN_BYTES = 6
_MOST_TOKENS = 16 * 1024


def answer_bytes(task: Task, body: Mapping[str, Any]) -> int:
    """About how many; 0 for one answer in words, which no request makes large."""
    if task in ("embeddings", "image-embeddings"):
        inputs = count_inputs(body.get("input")) or 1
        dimensions = body.get("dimensions") or _DIMENSIONS
        each = _BASE64_BYTES if body.get("encoding_format") == "base64" else _NUMBER_BYTES
        return inputs * dimensions * each if isinstance(dimensions, int) else 0
    prompts = body.get("prompt")
    choices = body.get("n")
    answers = choices if isinstance(choices, int) else 1
    if isinstance(prompts, list):
        answers *= len(prompts)
    most = body.get("max_tokens")
    tokens = min(most, _MOST_TOKENS) if isinstance(most, int) else _MOST_TOKENS
    return (answers - 1) * tokens * _TOKEN_BYTES if answers > 1 else 0
