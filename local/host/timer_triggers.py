"""Timer triggers: NCRONTAB schedules, in UTC, never two runs of one timer at once.

https://learn.microsoft.com/azure/azure-functions/functions-bindings-timer#ncrontab-expressions
Where Azure keeps the last run in storage, this host forgets it: a run missed while no host was up
is not made up for.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from azure.functions.meta import Datum
from cronsim import CronSim, CronSimError

from local.host.invoking import InvocationFailedError, Invoker
from local.host.loading import Function, LoadError

logger = logging.getLogger("local.host")


class Schedule:
    """An NCRONTAB expression of six fields (second first) or five. Errors: `LoadError`."""

    def __init__(self, expression: str) -> None:
        self.expression = expression
        self.after(datetime(2000, 1, 1, tzinfo=UTC))

    def after(self, moment: datetime) -> datetime:
        """The first occurrence later than `moment` (aware, UTC)."""
        try:
            occurrences = CronSim(self.expression, moment)
            # Debian's cron takes a day that fits either of two restricted day fields; NCRONTAB,
            # only one that fits both (atifaziz/NCrontab, CrontabSchedule.GetNextOccurrence).
            occurrences.day_and = True
            return next(occurrences)
        except (CronSimError, StopIteration) as error:
            raise LoadError(
                f"schedule {self.expression!r} is not NCRONTAB "
                "(second minute hour day month day-of-week)"
            ) from error


class TimerListener:
    """One timer function."""

    def __init__(
        self,
        function: Function,
        invoker: Invoker,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._function = function
        self._invoker = invoker
        self._now = now
        self._schedule = Schedule(function.trigger["schedule"])
        self._last: datetime | None = None

    async def run(self) -> None:
        """Call the function at each occurrence, until cancelled."""
        if self._function.trigger.get("runOnStartup"):
            await self.fire("RunOnStartup")
        while True:
            await self._until(self._schedule.after(self._now()))
            await self.fire("Timer fired")

    async def _until(self, due: datetime) -> None:
        # In short steps: a laptop that slept, or a clock that was set, must not delay it.
        while (wait := (due - self._now()).total_seconds()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(wait, 30.0))

    async def fire(self, reason: str) -> None:
        """Call the function once, now."""
        now = self._now()
        try:
            await self._invoker.invoke(self._function, self._request(now), {}, reason=reason)
        except InvocationFailedError:
            logger.warning("timer '%s' will run again when it is due", self._function.name)
        self._last = now

    def _request(self, now: datetime) -> Datum:
        last = self._last or datetime(1, 1, 1, tzinfo=UTC)
        request = {
            "Schedule": {"AdjustForDST": True},
            "ScheduleStatus": {
                "Last": last.isoformat(),
                "LastUpdated": last.isoformat(),
                "Next": self._schedule.after(now).isoformat(),
            },
            "IsPastDue": False,
        }
        return Datum(json.dumps(request), "json")
