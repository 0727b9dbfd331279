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
    sizes: Mapping[AskedKind, MeanSize], requests: Mapping[AskedKind, int]
) -> list[EstimateGroup]:
    """The requests of a file by what they ask for, each group with a range of tokens.

    Rows may ask for more tokens than an estimate tells: then the most that it tells stands there.
    """
    found = []
    for kind, count in requests.items():
        mean = sizes.get(kind)
        if mean is None or not count:
            continue
        task, model = kind
        least, most = (0.0, 0.0) if task in _VECTORS else _answer(mean)
        low, high = (mean.text * ratio + mean.fixed for ratio in RATIO)
        found.append(
            EstimateGroup(
                model=model,
                task=task,
                requests=count,
                prompt_tokens=_of_all(count, low, high),
                answer_tokens=_of_all(count, least, most),
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


def pledged(groups: Sequence[EstimateGroup]) -> list[EstimateGroup]:
    """The groups with the most tokens that calls may be pledged for where a job has a cap.

    Groups do not tell texts from images, nor what else a call holds: all prompts are taken for what
    grows the most.
    """
    return [
        each.model_copy(
            update={
                "prompt_tokens": (
                    each.tokens(LEAST)[0],
                    each.tokens(MOST)[0] * _PLEDGE + each.requests * _PER_CALL,
                )
            }
        )
        for each in groups
    ]


def summed(groups: Sequence[EstimateGroup]) -> tuple[TokenRange, TokenRange]:
    """The tokens of all prompts, and of all answers."""
    ends = [[each.tokens(end) for each in groups] for end in (LEAST, MOST)]
    prompts, answers = (
        TokenRange(*(round(sum(tokens[of] for tokens in end)) for end in ends)) for of in (0, 1)
    )
    return prompts, answers
