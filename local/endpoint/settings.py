"""How is one simulator set up? The profile and what is changed of it."""

from dataclasses import dataclass

from .answers import DEFAULT_DIMENSIONS, DEFAULT_MEAN_TOKENS
from .faults import Rule
from .limits import Limits
from .profiles import LIMITS, MODELS, REQUEST_TIMEOUTS, Model, ProfileName


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One simulated endpoint. A limit of None is the profile's own, 0 is unlimited.

    `latency` is the mean in seconds before an answer begins, lognormal with `latency_sigma`;
    `latency_per_token` is added for each completion token; `request_timeout` is after how many
    seconds the service itself answers 408 (0: never, None: the profile's own); `context` is the
    tokens that each model takes, prompt and max_tokens together (0: any, None: the model's own).
    """

    profile: ProfileName = "serverless"
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_per_day: int | None = None
    max_tokens_per_request: int | None = None
    max_concurrency: int | None = None
    window: int | None = None
    seed: int = 0
    latency: float = 0.0
    latency_sigma: float = 0.0
    latency_per_token: float = 0.0
    request_timeout: float | None = None
    key: str | None = None
    faults: tuple[Rule, ...] = ()
    models: tuple[Model, ...] = MODELS
    dimensions: int = DEFAULT_DIMENSIONS
    mean_tokens: int = DEFAULT_MEAN_TOKENS
    context: int | None = None

    @property
    def limits(self) -> Limits:
        """The profile's limits with the changes applied."""
        given = {name: getattr(self, name) for name in Limits.__slots__}
        own = LIMITS[self.profile]
        return Limits(**{name: getattr(own, name) if v is None else v for name, v in given.items()})

    @property
    def timeout(self) -> float:
        """Seconds after which the service gives a request up; 0 means never."""
        if self.request_timeout is None:
            return REQUEST_TIMEOUTS.get(self.profile, 0.0)
        return self.request_timeout
