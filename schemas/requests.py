"""Input rows: what one line of a file may look like, in every dialect, and what it becomes.

`workers/rows/dialects.py` tells dialects apart by the fields that a row has. Sources: OpenAI and
Azure OpenAI batch input files; the Azure AI Model Inference API; the scoring contract of managed
online endpoints; data sets with `prompt`, `prompt_id`, `messages`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr

from schemas.deployments import Task

IDS = ("custom_id", "id", "prompt_id")
"""Where a row may name itself; the first that it gives counts."""
LONGEST_ID = 512
CustomId = Annotated[StrictStr, Field(min_length=1, max_length=LONGEST_ID)]

TASK_OF_URL: dict[str, Task] = {
    "/v1/chat/completions": "chat",
    "/chat/completions": "chat",
    "/v1/completions": "completions",
    "/completions": "completions",
    "/v1/embeddings": "embeddings",
    "/embeddings": "embeddings",
    "/v1/images/embeddings": "image-embeddings",
    "/images/embeddings": "image-embeddings",
}
URL_OF_TASK: dict[Task, str] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "image-embeddings": "/images/embeddings",
}


def deeper_than(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested deeper than that: what could be read but not written."""
    stack = [(value, 1)]
    while stack:
        item, depth = stack.pop()
        if not isinstance(item, (dict, list)):
            continue
        if depth > levels:
            return True
        children = item.values() if isinstance(item, dict) else item
        stack.extend((child, depth + 1) for child in children if isinstance(child, (dict, list)))
    return False


class _Open(BaseModel):
    """A body whose known fields are checked and whose other fields travel on as they are."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class ChatMessage(_Open):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None


class _Sampled(_Open):
    model: Annotated[str, Field(min_length=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    best_of: Annotated[int, Field(ge=0)] | None = None
    stream: bool | None = None


class ChatBody(_Sampled):
    """Body of /chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]


class CompletionBody(_Sampled):
    """Body of /completions."""

    prompt: str | Annotated[list[str], Field(min_length=1)]


class EmbeddingBody(_Open):
    """Body of /embeddings."""

    model: Annotated[str, Field(min_length=1)] | None = None
    input: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[str], Field(min_length=1)]
        | Annotated[list[int], Field(min_length=1)]
    )
    dimensions: Annotated[int, Field(ge=1)] | None = None


class ImageInput(_Open):
    """One image, as a data URL, with an optional text."""

    image: Annotated[str, Field(min_length=1)]
    text: str | None = None


class ImageEmbeddingBody(_Open):
    """Body of /images/embeddings (Azure AI Model Inference API)."""

    model: Annotated[str, Field(min_length=1)] | None = None
    input: Annotated[list[ImageInput], Field(min_length=1)]


BODY_OF_TASK: dict[Task, type[_Open]] = {
    "chat": ChatBody,
    "completions": CompletionBody,
    "embeddings": EmbeddingBody,
    "image-embeddings": ImageEmbeddingBody,
}


class BatchRow(BaseModel):
    """A row of an OpenAI or Azure OpenAI batch file."""

    model_config = ConfigDict(extra="allow", strict=True)

    custom_id: CustomId | StrictInt | StrictFloat | None = None
    method: Literal["POST"] = "POST"
    url: str = Field(description="a path of the OpenAI API", examples=sorted(TASK_OF_URL))
    body: dict[str, Any] = Field(
        description="ChatBody, CompletionBody, EmbeddingBody or ImageEmbeddingBody, by the url"
    )


class ScoringInput(_Open):
    """`input_data` of the scoring contract."""

    input_string: Annotated[list[ChatMessage], Field(min_length=1)]
    parameters: dict[str, Any] = Field(default_factory=dict)


class ScoringRow(_Open):
    """A row for a managed online endpoint's /score."""

    input_data: ScoringInput


class PromptRow(_Open):
    """A prompt: a chat of one user turn."""

    prompt: Annotated[str, Field(min_length=1)]


class RepeatedRow(_Open):
    """A line of errors.jsonl: its request is asked again, or else its raw line read again."""

    error: dict[str, Any]
    custom_id: str | None = None
    request: dict[str, Any] | None = None
    raw: str | None = None


# A line of an input file. Chat, embedding and image rows carry `custom_id`, `id` or `prompt_id`
# beside the fields of their bodies. Where a job has a template, it makes the requests.
InputRow = (
    BatchRow
    | RepeatedRow
    | ChatBody
    | PromptRow
    | CompletionBody
    | EmbeddingBody
    | ImageEmbeddingBody
    | ScoringRow
)
