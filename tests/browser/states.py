"""A service with a job in each state that the dashboard shows."""

from collections.abc import Callable
from typing import Any

from schemas.money import Price
from schemas.tenants import Tenant
from tests.doubles.service import DEPLOYMENT, Bench
from workers.jobs.outbox import SHARDS

PRICED = DEPLOYMENT.model_copy(update={"price": Price(input="0.13", output="0.52", currency="USD")})
CAPPED: dict[str, Any] = {
    "deployments": (PRICED,),
    "tenants": {"default": Tenant(max_cost_per_month=0.5), "blue": Tenant(max_cost_per_month=20)},
}
QUOTA = {"requests_per_minute": 1000, "tokens_per_minute": 200_000}
LIMITED = PRICED.model_copy(update=QUOTA)
UNPRICED = DEPLOYMENT.model_copy(update={"name": "unpriced", "model": "phi-3-small"})
AT_NIGHT = DEPLOYMENT.model_copy(update={"hours": "22:00-06:00", "time_zone": "Europe/Berlin"})
TENANTS = {"default": Tenant(), "blue": Tenant()}

ROWS = b'{"prompt": "a"}\n{"prompt": "b"}\n'


async def completed(service: Bench, name: str = "fine.jsonl") -> str:
    ended = await service.run(ROWS, name)
    return str(ended.manifest["job"])


async def with_errors(service: Bench, name: str = "half.jsonl") -> str:
    ended = await service.run(ROWS + b'{"nothing": 1}\n{"prompt": ""}\n', name)
    return str(ended.manifest["job"])


async def failed(service: Bench, name: str = "table.csv.jsonl") -> str:
    ended = await service.run(b"a,b\n1,2\n", name)
    return str(ended.manifest["job"])


async def rejected(service: Bench) -> None:
    await service.say({"container": "inputs", "name": "missing.jsonl"})
    await service.settle()


def after(shards: int) -> Callable[[object], bool]:
    """Stops the host once so many shards' messages have come."""
    left = shards

    def stop(delivery: object) -> bool:
        nonlocal left
        left -= getattr(delivery, "queue", "") == SHARDS
        return left < 0

    return stop


async def begun(
    service: Bench, name: str = "long.jsonl", rows: int = 5000, **options: object
) -> str:
    """A job whose first shards are done, and no others."""
    await service.drop(b'{"prompt": "p"}\n' * rows, name, options=options or None)
    await service.announce(name)
    await service.settle(stop=after(3))
    told = [event["data"] for event in service.events]
    own = [each for each in told if each.get("input") == f"prompts/{name}"]  # others may go on too
    assert own[-1]["state"] == "in_progress", own
    return str(own[-1]["job"])


async def acted(service: Bench, action: str, name: str) -> str:
    job = await begun(service, name)
    reply = await service.ask("POST", f"/api/jobs/{job}/{action}")
    assert reply.code == 202, reply.body
    return job


async def ended_in_its_month(service: Bench) -> None:
    """A job whose tenant has a cap by month has ended."""
    await service.run(ROWS, "first.jsonl", options={"max_tokens": 9})


async def waiting_for_its_month(service: Bench) -> tuple[str, str]:
    """A job that holds most of its tenant's month, and one that waits for room in it."""
    holding = await begun(service, max_tokens=9, max_cost="0.3")
    options = {"max_tokens": 9, "max_cost": "0.3", "on_budget": "pause"}
    await service.drop(ROWS, "next.jsonl", options=options)
    await service.announce("next.jsonl")
    await service.settle(stop=after(3))
    told = [event["data"] for event in service.events]
    waits = next(each for each in told if each.get("input") == "prompts/next.jsonl")
    return holding, str(waits["job"])
