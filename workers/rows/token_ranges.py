"""How many tokens will requests have, at least and at most, before any of them has been asked?

The plan of a job and `phi3batch estimate` reckon by these figures.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from schemas.estimates import TokenRange
from schemas.estimating import MOST_ASKED, EstimateGroup
from workers.rows.most_tokens import IMAGE as PLEDGED_IMAGE
from workers.rows.sizes import IMAGE, AskedKind, MeanSize

LEAST: Final = 0
MOST: Final = 1
# Tokens of a byte of text, at least and at most: prose in English has about 0.25 under Phi-3's
# tokenizer, other languages, code and figures up to twice as many.
RATIO: Final = (0.2, 0.5)
# Tokens of an answer that nothing limits; one that is limited may have as few.
ANSWER: Final = (8.0, 1024.0)
# A cap counts a byte for a token, and an image for 50,000 (`most_tokens`): here those are half a
# token at most, and 800. What a call holds besides is usually not larger.
_PLEDGE: Final = -(-PLEDGED_IMAGE // IMAGE)
_PER_CALL: Final = 256
_VECTORS: Final = ("embeddings", "image-embeddings")


def groups_of(
    sizes: Mapping[AskedKind, MeanSize],
    requests: Mapping[AskedKind, int],
    pledges: Mapping[AskedKind, tuple[int, int] | None] | None = None,
) -> list[EstimateGroup]:
    """The requests of a file by what they ask for, each group with a range of tokens.

    Rows may ask for more tokens than an estimate tells: then the most that it tells stands there,
    and no pledge. `pledges` are the sums of `most_tokens`, where somebody has counted them.
    """
    found = []
    for kind, count in requests.items():
        mean = sizes.get(kind)
        if mean is None or not count:
            continue
        task, model = kind
        least, most = (0.0, 0.0) if task in _VECTORS else _answer(mean)
        low, high = (mean.text * ratio + mean.fixed for ratio in RATIO)
        pledge = (pledges or {}).get(kind)
        told = pledge is not None and max(pledge) <= MOST_ASKED
        found.append(
            EstimateGroup(
                model=model,
                task=task,
                requests=count,
                prompt_tokens=_of_all(count, low, high),
                answer_tokens=_of_all(count, least, most),
                pledged_tokens=pledge if told else None,
            )
        )
    return found


def _of_all(count: int, least: float, most: float) -> tuple[float, float]:
    return min(count * least, MOST_ASKED), min(count * most, MOST_ASKED)


def _answer(mean: MeanSize) -> tuple[float, float]:
    """Tokens of an answer at least and at most."""
    fewest, longest = ANSWER
    least = mean.limited * min(mean.output, fewest) + (1.0 - mean.limited) * fewest
    return least, mean.limited * mean.output + (1.0 - mean.limited) * longest


def reserved(
    groups: Sequence[EstimateGroup], sizes: Mapping[AskedKind, MeanSize]
) -> list[EstimateGroup]:
    """The groups with the fewest tokens that quotas are charged: of answers all that they may have.

    Where nothing limits an answer, it is charged what it has.
    """
    return [_reserved(each, sizes[each.task, each.model]) for each in groups]


def _reserved(group: EstimateGroup, mean: MeanSize) -> EstimateGroup:
    fewest, most = group.tokens(LEAST)[1], group.tokens(MOST)[1]
    if group.task in _VECTORS:
        return group
    limited = min(group.requests * mean.limited * mean.output, most)
    unlimited = group.requests * (1.0 - mean.limited) * ANSWER[LEAST]
    charged = max(fewest, limited + unlimited)
    return group.model_copy(update={"answer_tokens": (charged, max(charged, most))})


def pledged(groups: Sequence[EstimateGroup]) -> list[EstimateGroup]:
    """The groups with the most tokens that calls may be pledged for where a job has a cap."""
    return [_pledged(each) for each in groups]


def _pledged(group: EstimateGroup) -> EstimateGroup:
    """A group that does not say what calls are pledged for may hold what grows the most: images."""
    (prompts, answers), (most, longest) = group.tokens(LEAST), group.tokens(MOST)
    if group.pledged_tokens is None:
        most = most * _PLEDGE + group.requests * _PER_CALL
    else:
        most, longest = group.pledged_tokens
        # The service adds the name of a model where a row has none.
        most += group.requests * _PER_CALL if group.model is None else 0
    return group.model_copy(
        update={
            "prompt_tokens": (prompts, max(prompts, most)),
            "answer_tokens": (answers, max(answers, longest)),
        }
    )


def summed(groups: Sequence[EstimateGroup]) -> tuple[TokenRange, TokenRange]:
    """The tokens of all prompts, and of all answers."""
    ends = [[each.tokens(end) for each in groups] for end in (LEAST, MOST)]
    prompts, answers = (
        TokenRange(*(round(sum(tokens[of] for tokens in end)) for end in ends)) for of in (0, 1)
    )
    return prompts, answers
