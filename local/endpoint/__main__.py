"""`python -m local.endpoint`: serve a simulated Phi-3 endpoint until SIGTERM or SIGINT."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import orjson
from pydantic import ValidationError

from .answers import DEFAULT_DIMENSIONS, DEFAULT_MEAN_TOKENS
from .faults import Rule, read_rules
from .profiles import MODELS, PROFILES, Model
from .server import simulate
from .settings import Settings

_LIMITS = {
    "requests-per-minute": "requests a minute, judged over --window",
    "tokens-per-minute": "tokens a minute: prompt estimate + max_tokens, at admission",
    "requests-per-day": "requests a day",
    "max-tokens-per-request": "tokens of one request: prompt estimate + max_tokens",
    "max-concurrency": "requests at a time",
}


def main(arguments: list[str] | None = None) -> int:
    """Serve, and print the base url as the one line on stdout once connections are accepted."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        settings = _settings(given)
        _ = settings.limits
    except (ValueError, ValidationError, OSError) as error:
        parser.error(str(error))
    try:
        asyncio.run(_serve(settings, given.port))
    except OSError as error:
        print(f"cannot listen on port {given.port}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


async def _serve(settings: Settings, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with simulate(settings, port=port) as endpoint:
        print(endpoint.url, flush=True)
        await stop.wait()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m local.endpoint",
        description="Simulate a Phi-3 endpoint on 127.0.0.1. Limits default to the profile's "
        "real ones; 0 means unlimited.",
    )
    add = parser.add_argument
    add("--port", type=int, default=0, help="0 (default) takes a free one")
    add("--profile", choices=PROFILES, default="serverless", help="the service that is played")
    for name, text in _LIMITS.items():
        add(f"--{name}", type=int, metavar="N", help=text)
    add("--window", type=int, choices=(1, 10, 60), help="seconds of the request window, floored")
    add("--seed", type=int, default=0, help="decides answers and faults")
    add("--latency", type=float, default=0.0, metavar="S", help="mean seconds to an answer")
    add("--latency-sigma", type=float, default=0.0, help="of the lognormal latency; 0: constant")
    add("--latency-per-token", type=float, default=0.0, metavar="S")
    add("--request-timeout", type=float, metavar="S", help="the service's own, answered with 408")
    add("--key", help="ask for this key; without it every caller is let in")
    add("--faults", metavar="JSON|FILE", help="rules, or {fault: rate}: see docs/simulator.md")
    add("--models", nargs="+", metavar="NAME[:TASKS]", help="what is served; the first unnamed")
    add("--dimensions", type=int, default=DEFAULT_DIMENSIONS, help="of the embeddings")
    add("--context", type=int, metavar="N", help="tokens of prompt and answer; default: the name's")
    add("--mean-tokens", type=int, default=DEFAULT_MEAN_TOKENS, help="of the completions")
    return parser


def _settings(given: argparse.Namespace) -> Settings:
    options = vars(given).copy()
    del options["port"]
    options["faults"] = _rules(options["faults"])
    models = options["models"]
    options["models"] = tuple(map(Model.parse, models)) if models else MODELS
    return Settings(**options)


def _rules(text: str | None) -> tuple[Rule, ...]:
    if text is None:
        return ()
    inline = text.lstrip().startswith(("{", "["))
    return read_rules(orjson.loads(text if inline else Path(text).read_bytes()))


if __name__ == "__main__":
    sys.exit(main())
