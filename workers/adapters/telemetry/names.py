"""What spans, metrics and their attributes are called: the one place where names move.

Those of generative AI are of open-telemetry/semantic-conventions-genai as of October 2026, those of
messaging of the semantic conventions 1.44; both are in development. `batch.*` are this service's
own, and stay as they are, so that alerts may rest on them.
"""

from collections.abc import Mapping
from typing import Final

from schemas.deployments import EndpointKind, Task

SERVICE: Final = "phi3-batch-worker"

# -- attributes

JOB: Final = "batch.job.id"
SHARD: Final = "batch.shard"
STATE: Final = "batch.job.state"
DOOR: Final = "batch.job.door"
ERRAND: Final = "batch.errand"
END: Final = "batch.attempt.end"
ROWS: Final = "batch.rows"
FOUND: Final = "batch.rows.found"
ERRORS: Final = "batch.rows.errors"
OUTCOME: Final = "batch.outcome"
REASON: Final = "batch.wait.reason"
DEPLOYMENT: Final = "batch.deployment"
LIMIT: Final = "batch.limit"
CURRENCY: Final = "batch.currency"
DOCUMENT: Final = "batch.document"
WAITED: Final = "batch.waited"
ERROR: Final = "error.type"

SYSTEM: Final = "messaging.system"
SERVICE_BUS: Final = "servicebus"
DESTINATION: Final = "messaging.destination.name"
OPERATION_TYPE: Final = "messaging.operation.type"
OPERATION_NAME: Final = "messaging.operation.name"
MESSAGE_ID: Final = "messaging.message.id"
DELIVERIES: Final = "messaging.servicebus.message.delivery_count"
ENQUEUED: Final = "messaging.servicebus.message.enqueued_time"

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
INPUT_USAGE: Final = "gen_ai.usage.input_tokens"
OUTPUT_USAGE: Final = "gen_ai.usage.output_tokens"
STATUS: Final = "http.response.status_code"

OPERATIONS: Final[Mapping[Task, str]] = {
    "chat": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
    "image-embeddings": "embeddings",
}
PROVIDERS: Final[Mapping[EndpointKind, str]] = {
    "model-inference": "azure.ai.inference",
    "openai": "openai",
    "azure-openai": "azure.ai.openai",
    "aml-score": "azure.ml",
}

# -- spans, beside "{operation} {model}" of calls and "{operation} {queue}" of messages

JOB_SPAN: Final = "job"
ERRANDS: Final[Mapping[str, str]] = {
    "plan": "plan",
    "announce": "send jobs",
    "tell": "send job-status",
}

# -- histograms: their unit, and the upper ends of their buckets

INFERENCE_DURATION: Final = "gen_ai.client.inference.duration"
EMBEDDING_DURATION: Final = "gen_ai.client.operation.duration"
CALL_WAIT: Final = "batch.call.wait"
QUEUE_DELAY: Final = "batch.queue.delay"
JOB_DURATION: Final = "batch.job.duration"
JOURNAL_LAG: Final = "batch.journal.lag"
JOURNAL_WRITE: Final = "batch.journal.write.duration"
PROCESS_DURATION: Final = "messaging.process.duration"

_CALL: Final = (*(0.01 * 2**n for n in range(14)), 120.0, 180.0)
_WAIT: Final = (0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)
_LONG: Final = (1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 86400.0, 7 * 86400.0)
SECONDS: Final[Mapping[str, tuple[float, ...]]] = {
    INFERENCE_DURATION: _CALL,
    EMBEDDING_DURATION: _CALL,
    CALL_WAIT: _WAIT,
    QUEUE_DELAY: (*_WAIT, 600.0, 3600.0),
    JOB_DURATION: _LONG,
    JOURNAL_LAG: _WAIT,
    JOURNAL_WRITE: _WAIT,
    PROCESS_DURATION: (*_WAIT, 300.0, 600.0),
}

# -- sums, with their units

CALLS: Final = "batch.calls"
RETRIES: Final = "batch.retries"
ROWS_DONE: Final = "batch.rows"
JOBS_ENDED: Final = "batch.jobs"
ATTEMPTS: Final = "batch.shards.attempts"
REPEATS: Final = "batch.queue.repeats"
DEAD_LETTERS: Final = "batch.queue.dead_letters"
CONFLICTS: Final = "batch.swap.conflicts"
NUDGES: Final = "batch.nudges"
COST: Final = "batch.cost"
DROPPED: Final = "batch.telemetry.dropped_spans"
INPUT_TOKENS: Final = "gen_ai.client.inference.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.client.inference.usage.output_tokens"
QUOTA_USED: Final = "batch.quota.used"
ROUNDS_FAILED: Final = "batch.quota.rounds.failed"
SUMS: Final[Mapping[str, str]] = {
    CALLS: "{call}",
    RETRIES: "{call}",
    ROWS_DONE: "{row}",
    JOBS_ENDED: "{job}",
    ATTEMPTS: "{attempt}",
    REPEATS: "{message}",
    DEAD_LETTERS: "{message}",
    CONFLICTS: "{conflict}",
    NUDGES: "{nudge}",
    COST: "1",
    DROPPED: "{span}",
    INPUT_TOKENS: "{token}",
    OUTPUT_TOKENS: "{token}",
    QUOTA_USED: "1",
    ROUNDS_FAILED: "{round}",
}

# -- what stands so at the moment, with its unit

QUOTA_LIMIT: Final = "batch.quota.limit"
QUOTA_GRANTED: Final = "batch.quota.granted"
QUOTA_HEADROOM: Final = "batch.quota.headroom"
IN_FLIGHT: Final = "batch.calls.in_flight"
WAITING: Final = "batch.calls.waiting"
GUARD: Final = "batch.concurrency.limit"
BREAKER: Final = "batch.breaker.open"
SHARDS_ACTIVE: Final = "batch.shards.active"
LOOP_LAG: Final = "batch.event_loop.lag"
GAUGES: Final[Mapping[str, str]] = {
    QUOTA_LIMIT: "1",
    QUOTA_GRANTED: "1",
    QUOTA_HEADROOM: "1",
    IN_FLIGHT: "{call}",
    WAITING: "{call}",
    GUARD: "{call}",
    BREAKER: "1",
    SHARDS_ACTIVE: "{attempt}",
    LOOP_LAG: "s",
}
