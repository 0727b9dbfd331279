"""Where does each peer live? In an environment of its own below .local/peers, made once."""

import subprocess
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HOME: Final = Path(".local/peers")


@dataclass(frozen=True, slots=True)
class Peer:
    """A program, what its environment holds, and how it is set up, in words.

    One that only `paced` what another does without a quota has nothing to show without one.
    """

    program: str
    packages: tuple[str, ...]
    plain: str
    quota: str
    paced: bool = False

    def python(self) -> Path:
        """The interpreter of its environment, which is made unless it is there."""
        home = HOME / "-".join(self.packages)
        python = home / "bin" / "python"
        if not (home / "ready").exists():
            venv.create(home, with_pip=True, clear=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *self.packages], check=True)
            (home / "ready").touch()
        return python.absolute()


OPENAI: Final = ("openai==3.57.0", "aiolimiter==1.3.0")
PEERS: Final[Mapping[str, Peer]] = {
    "openai": Peer(
        "openai_loop",
        OPENAI,
        "AsyncOpenAI(max_retries=10), asyncio.Semaphore(100)",
        "the same: it knows no quota",
    ),
    "openai+aiolimiter": Peer(
        "openai_paced",
        OPENAI,
        "as openai",
        "as openai, and AsyncLimiter(1, 1/50)",
        paced=True,
    ),
    "litellm": Peer(
        "litellm_router",
        ("litellm==1.110.0",),
        "Router(num_retries=10, disable_cooldowns=True), asyncio.Semaphore(100)",
        "as without, and rpm=3000 with the check enforce_model_rate_limits",
    ),
    "curator": Peer(
        "curator_llm",
        ("bespokelabs-curator==0.1.31",),
        "LLM(backend=openai), max_concurrent_requests=100, max_retries=10, limits of 10^9",
        "as without, and max_requests_per_minute=3000",
    ),
    "langchain": Peer(
        "langchain_batch",
        ("langchain-openai==1.7.4",),
        "ChatOpenAI(max_retries=10).abatch, max_concurrency=100",
        "as without, and InMemoryRateLimiter(50 a second, looks every 0.01 s, bucket of 5)",
    ),
}
