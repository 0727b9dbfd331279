"""May a job with a cap ask this request, or could it be billed for more than its bound?

A cap holds only where `most_tokens` bounds every call, so that a capped job sends nothing of which
nobody knows what it adds to a prompt or an answer: parameters of another name for more answers,
documents that the endpoint looks up, sounds, films. Sources: the API references of OpenAI, Azure
OpenAI and the Azure AI Model Inference API; what vLLM, llama.cpp and the generate() of
transformers take beside them.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from schemas.deployments import Task
from workers.rows.dialects import WrongRow
from workers.rows.most_tokens import image_of, most_tokens

UNBOUNDED: Final = "max_tokens_missing"
UNKNOWN_COST: Final = "unknown_cost"
_UNBOUNDED: Final = (
    "max_cost, max_total_tokens and a tenant's cap by month need max_tokens in every row that "
    "generates: give it here, or as an option for all"
)

# Each bends which tokens are chosen, or what is told of them; none makes them more than the limit.
_GENERATION: Final = """
model max_tokens max_completion_tokens max_new_tokens n best_of temperature top_p top_k min_p
typical_p frequency_penalty presence_penalty repetition_penalty length_penalty seed random_seed
stop stop_token_ids stop_sequences include_stop_str_in_output ignore_eos min_tokens min_new_tokens
logit_bias logprobs top_logprobs prompt_logprobs bad_words allowed_token_ids
stream stream_options user metadata store service_tier safety_identifier prompt_cache_key
prompt_cache_retention cache_salt request_id priority response_format echo return_full_text
guided_json guided_regex guided_choice guided_grammar guided_decoding_backend
guided_whitespace_pattern structured_outputs grammar json_schema
skip_special_tokens spaces_between_special_tokens add_special_tokens truncate_prompt_tokens
return_tokens_as_token_ids return_token_ids
do_sample penalty_alpha no_repeat_ngram_size encoder_repetition_penalty epsilon_cutoff eta_cutoff
renormalize_logits early_stopping use_cache eos_token_id pad_token_id
mirostat mirostat_tau mirostat_eta repeat_penalty repeat_last_n dynatemp_range dynatemp_exponent
xtc_probability xtc_threshold dry_multiplier dry_base dry_allowed_length dry_penalty_last_n samplers
min_keep n_probs cache_prompt timings_per_token keep_alive
"""
_CHAT: Final = """
messages tools tool_choice parallel_tool_calls functions function_call documents reasoning_effort
include_reasoning verbosity add_generation_prompt continue_final_message chat_template_kwargs
"""
_VECTORS: Final = """
model input dimensions encoding_format embedding_types input_type truncate truncate_prompt_tokens
add_special_tokens normalize user metadata priority request_id
"""
_KNOWN: Final[Mapping[Task, frozenset[str]]] = {
    "chat": frozenset((_GENERATION + _CHAT).split()),
    "completions": frozenset((_GENERATION + "prompt suffix").split()),
    "embeddings": frozenset(_VECTORS.split()),
    "image-embeddings": frozenset(_VECTORS.split()),
}
_TURN: Final = frozenset(
    {"role", "content", "name", "refusal", "tool_calls", "tool_call_id", "function_call"}
    | {"reasoning_content", "reasoning", "prefix"}
)
_PARTS: Final[Mapping[str, frozenset[str]]] = {
    kind: frozenset({"type", kind}) for kind in ("text", "image_url", "image", "refusal")
}
_IMAGE_INPUT: Final = frozenset({"image", "text"})
_USUAL_PRICE: Final = (None, "auto", "default", "flex")
_TOLD: Final = 100
_OWN_TOOLS: Final = (None, "function", "custom")


def check_bounded(task: Task, body: Mapping[str, Any]) -> tuple[int, int]:
    """The most tokens, of prompt and answer, that a call can be billed for.

    Raises WrongRow for a body, valid by itself, whose call could be billed beyond.
    """
    most = most_tokens(task, body)
    if most is None:
        raise WrongRow(UNBOUNDED, _UNBOUNDED)
    limit = body.get("max_new_tokens")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise WrongRow("invalid_row", "max_new_tokens: has to be a whole number of 1 or more")
    for where in _unknown(task, body):
        column = ", or make requests of rows by the option template" if where in body else ""
        raise WrongRow(
            UNKNOWN_COST,
            f"{where[:_TOLD]}: what it may add to the cost is not known, and this job has a cap: "
            f"leave it out{column}",
        )
    return most


def _unknown(task: Task, body: Mapping[str, Any]) -> Iterator[str]:
    """The places in a body that could cost more than is seen of them."""
    yield from (name for name in body if name not in _KNOWN[task] and body[name] is not None)
    if body.get("service_tier") not in _USUAL_PRICE:
        yield "service_tier"
    if task == "chat":
        yield from _in_turns(body["messages"])
        tools = body.get("tools") or []
        for at, tool in enumerate(tools if isinstance(tools, list) else [tools]):
            if not isinstance(tool, dict) or tool.get("type") not in _OWN_TOOLS:
                yield f"tools.{at}"
    elif task == "image-embeddings":
        for at, each in enumerate(body["input"]):
            yield from (f"input.{at}.{name}" for name in each if name not in _IMAGE_INPUT)


def _in_turns(turns: list[dict[str, Any]]) -> Iterator[str]:
    for at, turn in enumerate(turns):
        where = f"messages.{at}"
        yield from (
            f"{where}.{name}" for name in turn if name not in _TURN and turn[name] is not None
        )
        content = turn.get("content")
        for nth, part in enumerate(content if isinstance(content, list) else ()):
            if not _is_seen(part):
                yield f"{where}.content.{nth}"


def _is_seen(part: Mapping[str, Any]) -> bool:
    """Whether a part is a text or an image and nothing else beside."""
    kinds = [kind for kind in _PARTS if kind in part]
    if len(kinds) != 1 or not _PARTS[kinds[0]].issuperset(part):
        return False
    [kind] = kinds
    fits = part.get("type", kind) == kind
    return fits and (kind in ("text", "refusal") or image_of(part) is not None)
