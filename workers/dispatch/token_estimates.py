"""How many tokens will a call be counted for, before anybody has counted them?

No tokenizer is downloaded: tokens per byte is learned from `usage`, for each deployment and job,
because a job's rows resemble each other. Azure judges tokens at admission, prompt estimate +
max_tokens, and gives nothing back (Azure OpenAI "Understanding rate limits"), so that is what is
reserved; only the prompt's part, and an output without max_tokens, are corrected afterwards.
"""

from schemas.outcomes import Usage
from workers.rows.sizes import Size

FIRST_RATIO = 0.36
"""Tokens per UTF-8 byte before anything has been learned."""
SURE_RATIO = 1 / 16
"""Tokens per UTF-8 byte that text surely has. SentencePiece makes no piece longer than 16
characters unless told to, so ASCII under Phi-3's tokenizer cannot have fewer; usual prose and code
have twice as many under any. To refuse a row that fits is worse than a call in vain."""
FIRST_OUTPUT = 256.0
"""Tokens of an answer without max_tokens before anything has been learned."""


class Estimator:
    """What one deployment's rows of one job cost, learned as they are answered."""

    __slots__ = ("_output", "_ratio", "_seen", "_sure")

    def __init__(self) -> None:
        self._ratio = FIRST_RATIO
        self._sure = SURE_RATIO
        self._output = FIRST_OUTPUT
        self._seen = 0

    def prompt(self, size: Size) -> float:
        """Tokens of the prompt."""
        return size.text * self._ratio + size.fixed

    def total(self, size: Size) -> float:
        """Tokens to reserve for the call."""
        return self.prompt(size) + (self._output if size.output is None else size.output)

    def least(self, size: Size) -> float:
        """Tokens that the call surely has.

        Means of other rows do not count here, nor does what templates and images may add.
        """
        return size.text * self._sure + (size.output or 0)

    def least_read(self, size: Size) -> float:
        """Tokens that the model surely has to read at a time.

        The answer's do not count: some servers cut `max_tokens` to what is left of the context.
        """
        return size.longest * self._sure

    def learn(self, size: Size, usage: Usage, reserved: float) -> float:
        """Learn from what was counted; gives by how many tokens the reservation was too small."""
        self._seen += 1
        pace = max(0.05, 1.0 / self._seen)
        output = usage.completion_tokens if size.output is None else size.output
        surplus = usage.prompt_tokens + output - reserved
        if size.text and usage.prompt_tokens > size.fixed:
            seen = (usage.prompt_tokens - size.fixed) / size.text
            self._ratio += pace * (min(seen, 2.0) - self._ratio)
        if size.text and usage.prompt_tokens:
            self._sure = min(self._sure, usage.prompt_tokens / size.text)
        if size.output is None:
            self._output += pace * (usage.completion_tokens - self._output)
        return surplus
