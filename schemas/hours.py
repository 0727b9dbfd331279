"""Hours of the day to which a deployment or a priority is limited, by the clock of a place.

Times are seconds since the epoch. Where clocks are put forward, hours that begin in what is left
out begin as much later, and end as much later where nothing of them would remain; where clocks are
put back, an hour that comes twice is open both times.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from itertools import count
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, TypeAdapter, ValidationError, field_validator

from schemas.setting_json import setting_json
from schemas.versions import Kept
from schemas.wrong_values import wrong_values

_FORM: Final = re.compile(
    r"([01][0-9]|2[0-3]):([0-5][0-9])-(?:([01][0-9]|2[0-3]):([0-5][0-9])|24:00)"
)
_ASKED: Final = "hours are a begin and another end, such as 22:00-06:00, in local time"


class Hours(Kept):
    """Hours of each day, over midnight where the end comes before the begin."""

    hours: str = Field(description="22:00-06:00; the end may be 24:00")
    time_zone: str = Field(description="as the IANA database calls it: Europe/Berlin, UTC")

    @field_validator("hours")
    @classmethod
    def _form(cls, hours: str) -> str:
        if _FORM.fullmatch(hours) is None or hours == "00:00-24:00" or hours[:5] == hours[6:]:
            raise ValueError(_ASKED)
        return hours

    @field_validator("time_zone")
    @classmethod
    def _known(cls, time_zone: str) -> str:
        try:
            zone_of(time_zone)
        except (LookupError, ValueError, OSError):
            raise ValueError(
                "no time zone of the IANA database: write Europe/Berlin, America/New_York or UTC"
            ) from None
        return time_zone

    def __str__(self) -> str:
        return f"{self.hours} {self.time_zone}"

    def standing(self, now: float) -> tuple[bool, float]:
        """Whether it is open now, and until when that stays so."""
        begin, end = next(self._windows(now))
        return (True, end) if begin <= now else (False, begin)

    def opens(self, now: float) -> float:
        """When it is open from now on; now where it is."""
        is_open, until = self.standing(now)
        return now if is_open else until

    def open_for(self, now: float) -> float:
        """Seconds for which it stays open from now on; 0 where it is not."""
        is_open, until = self.standing(now)
        return until - now if is_open else 0.0

    def open_seconds(self, begin: float, end: float) -> float:
        """Seconds between two times in which it is open."""
        found = 0.0
        for opens, closes in self._windows(begin):
            if opens >= end:
                break
            found += min(closes, end) - max(opens, begin)
        return found

    def after(self, now: float, seconds: float) -> float:
        """The time at which it has been open for so many seconds from now on."""
        for opens, closes in self._windows(now):
            begin = max(opens, now)
            if seconds <= closes - begin:
                return begin + seconds
            seconds -= closes - begin
        raise AssertionError("the days do not end")

    def _windows(self, now: float) -> Iterator[tuple[float, float]]:
        """The times at which it opens and closes, those that have passed left out."""
        today = datetime.fromtimestamp(now, zone_of(self.time_zone)).date()
        begin = end = -1.0
        for days in count(-2):
            opens, closes = _window(self.hours, self.time_zone, today + timedelta(days=days))
            if opens <= end:
                end = max(end, closes)
                continue
            if end > now:
                yield begin, end
            begin, end = opens, closes


@lru_cache(maxsize=64)
def zone_of(name: str) -> tzinfo:
    """A time zone by its name. Raises LookupError and ValueError where there is none."""
    return ZoneInfo(name)


@lru_cache(maxsize=64)
def _ends(hours: str) -> tuple[int, int]:
    """The minutes of the day at which they begin and end; of the next day from 1,440 on."""
    begin, end = (60 * int(each[:2]) + int(each[3:]) for each in hours.split("-"))
    return begin, end if end > begin else end + 1440


# Of some deployments' hours on the days of two weeks: an estimate asks for them over and over.
@lru_cache(maxsize=1024)
def _window(hours: str, time_zone: str, day: date) -> tuple[float, float]:
    """The times at which hours that begin on a day open and close."""
    zone, (first, last) = zone_of(time_zone), _ends(hours)
    opens = _instant(day, first, zone)
    closes = max(_instant(day, last, zone), _instant(day, last, zone, fold=1))
    return opens, closes if closes > opens else opens + 60.0 * (last - first)


def _instant(day: date, minutes: int, zone: tzinfo, fold: Literal[0, 1] = 0) -> float:
    """Of a time that comes twice the first, or the second; of one that is left out as much later,
    or earlier.
    """
    days, rest = divmod(minutes, 1440)
    local = datetime.combine(day + timedelta(days=days), time(rest // 60, rest % 60), zone)
    return local.replace(fold=fold).timestamp()


_BY_NAME: Final = TypeAdapter(dict[str, Hours])


def parse_hours(setting: str, text: str, names: Sequence[str]) -> Mapping[str, Hours]:
    """A setting that gives each of some names its hours. Raises ValueError."""
    raw: Any = setting_json(setting, text)
    shown = '{"low": {"hours": "22:00-06:00", "time_zone": "Europe/Berlin"}}'
    try:
        found = _BY_NAME.validate_python(raw)
    except ValidationError as error:
        first = wrong_values(error)[0]
        where = ", ".join(repr(part) for part in first.loc if part != "[key]")
        raise ValueError(
            f"{setting}{f', {where}' if where else ''}: {first.words}; for example {shown}"
        ) from None
    for name, hours in found.items():
        if name not in names:
            raise ValueError(f"{setting}: {name!r} is not known, {', '.join(names)} are")
        if hours.model_extra:
            unknown = next(iter(hours.model_extra))
            raise ValueError(f"{setting}, {name!r}: {unknown!r} is not known; for example {shown}")
    return found
