"""The setting `DEPLOYMENTS`: which endpoints may be called, how, and how much they allow."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Task = Literal["chat", "completions", "embeddings", "image-embeddings"]
Kind = Literal["model-inference", "openai", "azure-openai", "aml-score"]

TASKS_OF_KIND: dict[Kind, tuple[Task, ...]] = {
    "model-inference": ("chat", "completions", "embeddings", "image-embeddings"),
    "openai": ("chat", "completions", "embeddings"),
    "azure-openai": ("chat", "completions", "embeddings"),
    "aml-score": ("chat",),
}


class Deployment(BaseModel):
    """One endpoint and model with its quota and credentials. Absent limits mean unlimited."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    kind: Kind
    url: str = Field(pattern=r"^https?://[^\s/]+")
    model: str
    auth: Literal["key", "entra", "none"] = "key"
    key_setting: str | None = None
    tasks: tuple[Task, ...] = ()
    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    requests_per_day: int | None = Field(default=None, gt=0)
    max_tokens_per_request: int | None = Field(default=None, gt=0)
    max_concurrency: int | None = Field(default=None, gt=0)
    weight: float = Field(default=1.0, gt=0)
    api_version: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    timeout: float = Field(default=120.0, gt=0, le=180)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.auth == "key" and not self.key_setting:
            raise ValueError("auth 'key' needs key_setting, the name of the setting with the key")
        unable = [task for task in self.tasks if task not in TASKS_OF_KIND[self.kind]]
        if unable:
            raise ValueError(f"kind {self.kind!r} cannot do {', '.join(unable)}")
        return self

    @property
    def serves(self) -> tuple[Task, ...]:
        """The tasks this deployment does: those named, else all that its kind can do."""
        return self.tasks or TASKS_OF_KIND[self.kind]
