"""Ten thousand short inputs in few calls, each vector with its own row, by value."""

import asyncio
from collections.abc import Sequence

from local.endpoint import Rule, Settings, When, embedding
from schemas.outcomes import OutcomeKind
from tests.adapters.clients import EMBED, SEED, simulated, written
from workers.ports import Endpoint
from workers.rows.packing import Limits, Pack, Packable, Share, blames_a_row, pack, unpack

DIMENSIONS = 8


def rows(count: int) -> list[Packable]:
    """Rows as a file holds them: most with one text, some with several."""
    texts = [[f"text {n}"] if n % 10 else [f"text {n}", f"and {n}"] for n in range(count)]
    return [
        Packable(n, EMBED, {"input": each if n % 10 == 0 else each[0], "dimensions": DIMENSIONS})
        for n, each in enumerate(texts)
    ]


async def answered(
    endpoint: Endpoint, packs: Sequence[Pack]
) -> tuple[dict[int, Share], dict[int, OutcomeKind], int]:
    """Ask all packs, halving what is refused: shares by row, refusals by row, calls made."""
    shares: dict[int, Share] = {}
    refused: dict[int, OutcomeKind] = {}
    calls = 0
    gate = asyncio.Semaphore(16)

    async def ask(each: Pack) -> None:
        nonlocal calls
        async with gate:
            calls += 1
            outcome = await endpoint.ask("embeddings", each.body)
        if outcome.kind == "ok" and outcome.body is not None:
            shares.update({s.row: s for s in unpack(each, outcome.body, outcome.usage)})
        elif blames_a_row(each, outcome):
            await asyncio.gather(*map(ask, each.halve()))
        else:
            refused[each.requests[0].row] = outcome.kind

    await asyncio.gather(*map(ask, packs))
    return shares, refused, calls


async def test_ten_thousand_short_rows_take_a_fifth_of_the_calls_or_less() -> None:
    asked = rows(10_000)
    async with simulated("openai", model=EMBED) as (endpoint, simulator):
        shares, refused, calls = await answered(endpoint, pack(asked, Limits()))
        stats = simulator.stats()
    assert not refused
    assert calls <= 10_000 / 5
    assert sorted(shares) == list(range(10_000))
    for request in asked:
        texts = request.body["input"]
        texts = texts if isinstance(texts, list) else [texts]
        own = [each["embedding"] for each in written(shares[request.row].body)["data"]]
        assert own == [embedding(SEED, EMBED, text, DIMENSIONS) for text in texts]
    assert stats["rows"]["billed_more_than_once"] == 0
    used = [share.usage for share in shares.values()]
    assert sum(usage.prompt_tokens for usage in used if usage) == stats["tokens_billed"]


async def test_bad_rows_are_found_and_the_others_answered() -> None:
    asked = rows(2_000)
    bad = {123: "bad_request", 1_777: "content_filter"}
    rules = (
        Rule(fault="http_400", when=When(contains="text 123")),
        Rule(fault="content_filter_400", when=When(contains="text 1777")),
    )
    asked[1_230] = Packable(1_230, EMBED, asked[0].body)  # its text contains the mark too
    asked = [request for request in asked if request.row not in range(1_231, 1_240)]
    settings = Settings(profile="openai", seed=SEED, faults=rules)
    async with simulated("openai", settings, model=EMBED) as (endpoint, _):
        shares, refused, calls = await answered(endpoint, pack(asked, Limits()))
    assert refused == bad
    assert sorted(shares) == sorted({request.row for request in asked} - bad.keys())
    assert calls <= len(asked) / 5
    for row in (122, 124, 1_776, 1_778):
        own = written(shares[row].body)["data"][0]["embedding"]
        assert own == embedding(SEED, EMBED, f"text {row}", DIMENSIONS)
