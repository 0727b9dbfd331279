"""A job's state only ever moves forward, and what is sent follows the protocol."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from schemas.budgets import JobBudget
from schemas.jobs import TERMINAL, Ending, Job, JobOptions, JobState, Reason, Waiting
from schemas.results import NOTHING_LOST, Counts, Receipt, Tokens
from workers.jobs import beginning, budget, endings, helping, lifecycle, pace, pauses
from workers.jobs.lifecycle import NOTHING, UNTOLD, Change, Progress

ROWS = 3
REASON = Reason(code="why", message="because")


def job(window: int = 4) -> Job:
    return Job(
        id="j",
        door="drop",
        container="prompts",
        name="in.jsonl",
        etag="e",
        size=1,
        options=JobOptions(),
        priority="normal",
        created=0.0,
        expires=86_400.0,
        window=window,
        max_line_bytes=1024,
        results="in/j",
    )


def receipt(shard: int) -> Receipt:
    return Receipt(
        shard=shard,
        attempt="a",
        counts=Counts(succeeded=ROWS - 1, failed=1),
        tokens=Tokens(prompt=10, completion=1),
    )


def begun(shards: int, window: int = 4, state: JobState | None = None) -> JobState:
    change = beginning.begin(
        state, job(window), shards=shards, rows=shards * ROWS, ending=None, now=1.0
    )
    assert change.state is not None
    return change.state


SEATS = st.sampled_from([1, 6, 12, 40])


class Lifecycle(RuleBasedStateMachine):
    """Anything may happen at any time, and any message may come again or late.

    The machine plays the queues: `sent` holds copies of shard messages, `receipts` what is done.
    """

    @initialize(shards=st.integers(0, 9), window=st.integers(1, 4), cancelled=st.booleans())
    def announced(self, shards: int, window: int, cancelled: bool) -> None:
        self.job, self.shards, self.now = job(window), shards, 1.0
        self.state: JobState | None = None
        self.sent: set[tuple[int, int]] = set()
        self.receipts: set[int] = set()
        self.finishes = 0
        self.first_ending: Ending | None = None
        if cancelled:
            self.first_ending = "cancelled"
            self.take(endings.end(None, "cancelled", None))
        self.begin()

    def take(self, change: Change, *, repeated: bool = False) -> Change:
        before = self.state
        if change.state is not None:
            if before is not None:
                self._moved_forward(before, change.state)
            self.state = change.state
        state = self.state
        assert state is not None
        # Whatever is sent is out, so that whoever comes next knows of it.
        assert set(change.shards) <= set(state.out)
        assert not (change.finish and state.out and state.state == "in_progress")
        if change.shards and change.state is None and before is not None:
            assert set(change.shards) == set(state.out)
        self.sent |= {(shard, state.gen) for shard in change.shards}
        self.finishes += change.finish
        return change

    def _moved_forward(self, before: JobState, after: JobState) -> None:
        order = ["validating", "in_progress", "finalizing", *sorted(TERMINAL)]
        assert not before.terminal
        assert after.revision == before.revision + 1
        assert order.index(after.state) >= order.index(before.state)
        assert after.next >= before.next
        assert after.gen >= before.gen
        assert after.staged >= before.staged
        assert after.counts.done >= before.counts.done
        for kind in ("succeeded", "failed", "invalid", "cancelled", "expired"):
            assert getattr(after.counts, kind) >= getattr(before.counts, kind)
        if before.ending is not None:
            assert (after.ending, after.reason) == (before.ending, before.reason)
        if before.state == "in_progress":
            assert after.counts.total == before.counts.total == self.shards * ROWS
            assert after.shards == before.shards

    @property
    def running(self) -> JobState:
        assert self.state is not None
        return self.state

    # -- what may happen

    @rule()
    def begin(self) -> None:
        """The announcement, and each repeat of it."""
        self.take(
            beginning.begin(
                self.state,
                self.job,
                shards=self.shards,
                rows=self.shards * ROWS,
                ending=None,
                now=self.now,
            )
        )

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), repeated=st.booleans(), crashes=st.booleans(), seats=SEATS)
    def a_shard_message_comes(self, data: Any, repeated: bool, crashes: bool, seats: int) -> None:
        """Any copy, however old; a crash leaves the receipt and no advance."""
        shard, gen = data.draw(st.sampled_from(sorted(self.sent)))
        self.now += 1
        if shard not in self.receipts:
            if not lifecycle.runs(self.running, gen):
                return
            self.receipts.add(shard)
        if crashes:
            return
        before = self.running
        change = self.take(
            lifecycle.advance(before, receipt(shard), repeated=repeated, now=self.now, seats=seats)
        )
        if shard not in before.out:
            assert change.state is None
            assert not change.shards or repeated

    @rule(ending=st.sampled_from(["cancelled", "expired", "failed"]), repeated=st.booleans())
    def an_ending_is_asked_for(self, ending: Ending, repeated: bool) -> None:
        before = self.running
        change = self.take(endings.end(before, ending, REASON, repeated=repeated))
        if before.state == "in_progress" and before.ending is None:
            self.first_ending = ending
            assert set(change.shards) == set(before.out)
            assert self.running.gen == before.gen + 1
            assert not self.running.paused
        else:
            assert change.state is None

    @rule()
    def paused(self) -> None:
        before = self.running
        self.take(pauses.pause(before, now=2.0))
        assert self.running.paused == (
            before.paused or (before.state == "in_progress" and before.ending is None)
        )

    @rule(repeated=st.booleans())
    def resumed(self, repeated: bool) -> None:
        before = self.running
        change = self.take(pauses.resume(before, repeated=repeated, now=3.0))
        if before.paused:
            assert set(change.shards) == set(before.out)
        assert not self.running.paused

    @rule(reason=st.sampled_from(["quota", "outage"]))
    def waits(self, reason: Any) -> None:
        self.take(lifecycle.wait(self.running, Waiting(reason=reason, since=self.now)))

    @rule()
    def the_sweeper_comes(self) -> None:
        before = self.running
        change = self.take(helping.nudge(before, before.revision))
        if before.state == "in_progress" and not before.paused:
            assert change.finish or set(change.shards) == set(before.out)

    @precondition(lambda self: self.finishes)
    @rule(staged=st.integers(0, 9))
    def the_finisher_comes(self, staged: int) -> None:
        self.take(endings.finalize(self.running))
        if self.running.state != "finalizing":
            return
        if staged < self.shards:
            change = self.take(endings.stage(self.running, staged))
            assert change.finish == (change.state is not None)
            return
        assert self.receipts == set(range(self.shards))
        change = endings.close(
            self.running, use=self.running.use, lost=self.running.lost, now=self.now
        )
        closed = self.take(change).state
        assert closed is not None
        assert closed.terminal
        assert closed.state == (self.first_ending or "completed")

    # -- what always holds

    @invariant()
    def every_shard_is_accounted_for(self) -> None:
        state = self.state
        if state is None or state.state == "validating":
            return
        assert len(state.out) <= lifecycle.WIDEST * state.window
        assert len(set(state.out)) == len(state.out)
        assert 0 <= state.next <= state.shards == self.shards
        assert all(shard < state.next for shard in state.out)
        counted = {shard for shard in range(state.next) if shard not in state.out}
        assert counted <= self.receipts
        assert state.counts.done == ROWS * len(counted)
        assert state.tokens.total == 11 * len(counted)
        if state.state != "in_progress":
            assert counted == set(range(self.shards))
        assert len(state.marks) <= pace.MARKS

    @invariant()
    def something_goes_on(self) -> None:
        """Each shard that is out has been sent, and with nothing left a finish was asked for."""
        state = self.state
        if state is None or state.state == "validating" or state.paused:
            return
        assert {shard for shard, _ in self.sent} >= set(state.out)
        if state.state == "in_progress" and not state.out:
            assert self.finishes

    def teardown(self) -> None:
        """From anywhere, the sweeper and the queues bring the job to its end."""
        if self.state is None:
            return
        if self.running.paused:
            self.resumed(repeated=False)
        for _ in range(3 * self.shards + 3):
            if self.running.state == "in_progress":
                self.the_sweeper_comes()
                for shard in self.running.out:
                    self.receipts.add(shard)
                    change = lifecycle.advance(
                        self.running, receipt(shard), repeated=False, now=self.now
                    )
                    self.take(change)
            elif not self.running.terminal:
                self.the_finisher_comes(9)
            if self.finishes and self.running.state == "in_progress" and not self.running.out:
                self.the_finisher_comes(9)
        assert self.running.terminal


Lifecycle.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestLifecycle = Lifecycle.TestCase


def test_a_cancel_before_the_plan_is_not_forgotten() -> None:
    cancelled = endings.end(None, "cancelled", None).state
    assert cancelled is not None
    state = begun(3, state=cancelled)
    assert (state.state, state.ending, state.out) == ("in_progress", "cancelled", (0, 1, 2))


def test_an_empty_plan_goes_straight_to_its_end() -> None:
    change = beginning.begin(None, job(), shards=0, rows=0, ending=REASON, now=1.0)
    assert change.finish
    assert change.state is not None
    assert (change.state.ending, change.state.reason) == ("failed", REASON)
    finalized = endings.finalize(change.state).state
    assert finalized is not None
    closed = endings.close(finalized, use=finalized.use, lost=NOTHING_LOST, now=2.0).state
    assert closed is not None
    assert (closed.state, closed.ended) == ("failed", 2.0)


def test_a_paused_job_sends_nothing() -> None:
    paused = pauses.pause(begun(9), now=2.0).state
    assert paused is not None
    assert not lifecycle.runs(paused, paused.gen)
    assert lifecycle.advance(paused, receipt(8), repeated=True, now=2.0).shards == ()
    assert helping.nudge(paused, paused.revision) == NOTHING
    repeated = beginning.begin(paused, job(), shards=9, rows=27, ending=None, now=2.0)
    assert repeated == NOTHING


def test_older_generations_are_not_run() -> None:
    state = begun(9)
    nudged = helping.nudge(state, state.revision).state
    assert nudged is not None
    assert not lifecycle.runs(nudged, state.gen)
    assert lifecycle.runs(nudged, nudged.gen)
    assert helping.nudge(nudged, state.revision) == NOTHING


def test_an_outage_that_was_tried_in_vain_goes_on_from_when_it_began() -> None:
    outage = Waiting(reason="outage", deployment="phi", since=100.0, until=700.0)
    waits = lifecycle.wait(begun(9), outage).state
    assert waits is not None
    tried = helping.retry(waits, now=200.0)
    assert tried.state is not None
    assert (tried.shards, tried.state.gen) == (waits.out, waits.gen + 1)
    known = tried.state.waiting
    assert known == outage.model_copy(update={"until": 200.0 + helping.RETRY_DELAY}), "told until"
    for until in (800.0, None):
        again = outage.model_copy(update={"since": 205.0, "until": until})
        found = lifecycle.wait(tried.state, again).state
        assert found is not None
        assert found.waiting == outage.model_copy(update={"until": until})
        assert lifecycle.wait(found, again).state is None, "told once"
    # Where it was not in vain, a shard's receipt ends the wait.
    done = lifecycle.advance(tried.state, receipt(0), repeated=False, now=210.0).state
    assert done is not None
    assert done.waiting is None


def test_who_asks_for_a_try_again_and_again_does_not_hold_it_back() -> None:
    outage = Waiting(reason="outage", deployment="phi", since=100.0, until=700.0)
    waits = lifecycle.wait(begun(9), outage).state
    assert waits is not None
    first = helping.retry(waits, now=200.0)
    tried = first.state
    assert tried is not None
    sent = first.shards
    for now in (200.0, 201.0, 202.0, 203.0, 204.0, 205.0):
        # What the first one sent is under way until 204, and about to be asked just after that.
        assert helping.retry(tried, now=now) == NOTHING
    # Its swap may have met a conflict that was its own success: then nothing was sent yet.
    again = helping.retry(tried, repeated=True, now=200.5)
    assert again == Change(None, sent, delay=helping.RETRY_DELAY)
    counted = lifecycle.advance(tried, receipt(0), repeated=False, now=201.0).state
    assert counted is not None
    assert helping.retry(counted, now=202.0) == NOTHING
    # Where it was in vain the shards say for how long they are away, and where nothing came of it
    # at all the time has passed: the next one is taken.
    vain = lifecycle.wait(tried, outage.model_copy(update={"since": 204.5, "until": 800.0})).state
    assert vain is not None
    for stands, now in ((vain, 205.0), (tried, 209.0)):
        taken = helping.retry(stands, now=now)
        assert taken.state is not None
        assert (taken.state.gen, taken.shards) == (tried.gen + 1, tried.out)
        assert taken.state.waiting == outage.model_copy(update={"until": now + helping.RETRY_DELAY})


def test_a_try_every_three_seconds_lets_what_it_sent_be_asked() -> None:
    outage = Waiting(reason="outage", deployment="phi", since=100.0, until=700.0)
    state, due = lifecycle.wait(begun(9), outage).state, dict[int, float]()
    assert state is not None
    for now in range(200, 300, 3):
        change = helping.retry(state, now=float(now))
        if change.state is None:
            continue
        # Whatever an earlier one sent was delivered before, with seconds to be looked at.
        assert all(at <= now - 2.0 for at in due.values())
        state, due[change.state.gen] = change.state, now + change.delay
    assert len(due) > 5


def test_a_late_look_helps_a_job_less_and_less_often() -> None:
    looks = [look for look in range(1, 40) if helping.overdue(None, look * 300.0 + 9, 300.0, 300.0)]
    assert looks == [1, 2, 4, 8, 12, 24, 36]
    state = begun(9)
    assert not helping.overdue(state, 299.0, 300.0)
    waits = []
    for nudges in range(6):
        told = state.model_copy(update={"nudges": nudges})
        waits.append(next(n for n in range(1, 40) if helping.overdue(told, n * 300.0, 300.0)))
    assert waits == [1, 2, 4, 8, 12, 12]
    # A look that comes to the job sooner after its begin than the one that helped is no earlier.
    for nudges, due in enumerate((2, 4, 8, 12, 12), 1):
        told = state.model_copy(update={"nudges": nudges})
        for sooner in (-149.0, -45.0, -0.6, 0.0, 45.0, 149.0):
            assert helping.overdue(told, due * 300.0 - sooner, 300.0)
            assert not helping.overdue(told, (due - 1) * 300.0 - sooner, 300.0)


@given(st.lists(st.floats(60.0, 1500.0), min_size=20, max_size=60))
def test_looks_that_come_late_or_not_at_all_help_all_the_same(gaps: list[float]) -> None:
    age, helped, due = 0.0, 0, [1, 2, 4, 8, *range(12, 400, 12)]
    for gap in gaps:
        age += gap
        helped += helping.overdue(None, age, 300.0, gap)
        crossed = {at for at in due if age - gap < at * 300.0 <= age}
        assert helping.overdue(None, age, 300.0, gap) == bool(crossed)
    assert helped >= 1
    assert helping.overdue(None, 301.0, 300.0), "who has not looked before helps"
    assert not helping.overdue(None, -400.0, 300.0), "a clock may be behind"


def test_a_clock_that_is_behind_helps_nobody() -> None:
    # What storage says to have moved now is in this clock's future.
    assert not helping.overdue(None, -1.5, 300.0)
    assert not helping.overdue(begun(9), -1.5, 300.0, 300.0)


@pytest.mark.parametrize(
    ("seats", "out"), [(1, 16), (4, 16), (5, 20), (8, 32), (15, 60), (16, 64), (64, 64)]
)
def test_more_shards_are_out_where_more_have_a_seat_at_the_quota(seats: int, out: int) -> None:
    state = begun(100, window=16)
    counted = lifecycle.advance(state, receipt(3), repeated=False, now=50.0, seats=seats)
    assert counted.state is not None
    assert counted.shards == tuple(range(16, out + 1))
    assert len(counted.state.out) == out
    # Where they are fewer again, none goes out before fewer are.
    fewer = lifecycle.advance(counted.state, receipt(4), repeated=False, now=51.0)
    assert fewer.shards == ((out + 1,) if out == 16 else ())


def test_of_a_capped_job_no_more_shards_are_out() -> None:
    capped = begun(100, window=16).model_copy(update={"budget": JobBudget(max_tokens=1_000_000)})
    counted = lifecycle.advance(capped, receipt(3), repeated=False, now=50.0, seats=16)
    assert counted.shards == (16,)


def test_rows_in_shards_that_are_out_are_told_once_a_second_at_most() -> None:
    state = begun(9)
    told = lifecycle.report(
        state, {0: Progress(30), 1: Progress(12), 99: Progress(7)}, now=10.0
    ).state
    assert told is not None
    assert (told.running, told.running_rows) == (((0, 30), (1, 12)), 42)
    assert lifecycle.report(told, {0: Progress(31)}, now=10.9) == UNTOLD
    assert lifecycle.report(told, {0: Progress(30)}, now=20.0) == UNTOLD
    fell = lifecycle.report(told, {0: Progress(5)}, now=20.0).state
    assert fell is not None
    assert fell.running_rows == 17
    counted = lifecycle.advance(fell, receipt(0), repeated=False, now=21.0).state
    assert counted is not None
    assert counted.running == ((1, 12),)


def test_rows_of_earlier_attempts_are_no_rows_of_the_last_seconds() -> None:
    """A run is taken up again: 650 rows stood in its journals, ten a second come."""
    state = begun(9).model_copy(update={"counts": Counts(total=2000), "marks": ((0.0, 0),)})
    for at in range(1, 11):
        done = {
            0: Progress(200 + 5 * at, found=200),
            1: Progress(250 + 5 * at, found=250),
            2: Progress(0),
        }
        state = lifecycle.report(state, done, float(at)).state or state
    assert state.running_rows == 550
    assert pace.pace(state) == pace.Pace(10.0, "measured")
    whole = receipt(3).model_copy(update={"counts": Counts(total=220, succeeded=220)})
    counted = lifecycle.advance(state, whole, repeated=False, now=12.0, found=200).state
    assert counted is not None
    assert pace.pace(counted) == pace.Pace(10.0, "measured")
    again = lifecycle.report(
        counted, {0: Progress(270, found=260), 1: Progress(260, found=240)}, 14.0
    ).state
    assert again is not None
    assert pace.pace(again) == pace.Pace(150 / 14.0, "measured"), "60 were lost, 30 came"


def test_what_is_told_at_once_as_attempts_end_distorts_no_pace() -> None:
    """Ten rows a second come, until a pause has nine attempts hand their shards back."""
    state = begun(9, window=9).model_copy(update={"counts": Counts(total=2000)})
    state = state.model_copy(update={"marks": ((0.0, 0),)})
    for at in range(1, 31):
        state = lifecycle.report(state, {0: Progress(10 * at)}, float(at)).state or state
    assert lifecycle.report(state, {1: Progress(1)}, 30.02) == UNTOLD
    for shard in range(1, 9):
        done = {shard: Progress(500, found=499, cost=7)}
        told = lifecycle.report(state, done, 30.0 + shard / 10, at_once=True).state
        assert told is not None
        state = told
    assert state.running_rows == 300 + 8 * 500
    assert pace.pace(state) == pace.Pace(308 / 30.8, "measured")
    assert len(state.marks) < 10
    assert [each.cost for each in state.running_tokens] == [0] + 8 * [7]
    assert lifecycle.report(state, {8: Progress(500, cost=7)}, 31.0, at_once=True) == UNTOLD


@pytest.mark.parametrize("kind", ["invalid", "cancelled", "expired"])
def test_rows_that_nobody_was_asked_for_are_no_pace(kind: str) -> None:
    state = begun(9).model_copy(update={"marks": ((0.0, 0), (10.0, 100), (20.0, 200))})
    state = state.model_copy(update={"counts": Counts(total=900, succeeded=200)})
    left = Counts(total=100, succeeded=10, **{kind: 90})
    ended = receipt(0).model_copy(update={"counts": left})
    counted = lifecycle.advance(state, ended, repeated=False, now=21.0).state
    assert counted is not None
    assert pace.pace(counted) == pace.Pace(10.0, "measured")


def test_a_wait_is_told_once() -> None:
    state = begun(9)
    waiting = Waiting(reason="quota", deployment="phi", since=1.0)
    told = lifecycle.wait(state, waiting).state
    assert told is not None
    assert told.waiting == waiting
    assert lifecycle.wait(told, waiting.model_copy(update={"since": 2.0})) == UNTOLD
    other = lifecycle.wait(told, waiting.model_copy(update={"deployment": "other"}))
    assert other.state is not None
    advanced = lifecycle.advance(told, receipt(0), repeated=False, now=3.0).state
    assert advanced is not None
    assert advanced.waiting is None


def test_a_pause_keeps_its_reason_whatever_was_on_its_way() -> None:
    spent = Waiting(reason="budget", message="no room", since=10.0)
    paused = pauses.pause(begun(9), spent, now=10.0).state
    assert paused is not None
    counted = lifecycle.advance(paused, receipt(0), repeated=False, now=11.0).state
    assert counted is not None
    assert (counted.paused, counted.waiting) == (True, spent)
    resumed = pauses.resume(counted, now=70.0).state
    assert resumed is not None
    assert (resumed.waiting, resumed.budget_seconds) == (None, 60.0)


def test_a_wait_that_lasts_longer_than_was_told_is_renewed_and_keeps_its_beginning() -> None:
    outage = Waiting(reason="outage", deployment="phi", since=100.0, until=130.0)
    told = lifecycle.wait(begun(9), outage).state
    assert told is not None
    sooner = outage.model_copy(update={"since": 125.0, "until": 131.0})
    assert lifecycle.wait(told, sooner) == UNTOLD
    later = lifecycle.wait(told, outage.model_copy(update={"since": 131.0, "until": 190.0})).state
    assert later is not None
    assert later.waiting == outage.model_copy(update={"until": 190.0})
    another = outage.model_copy(update={"reason": "quota", "since": 200.0, "until": None})
    changed = lifecycle.wait(later, another).state
    assert changed is not None
    assert changed.waiting == another


def test_a_pause_by_hand_is_summed_and_no_wait_for_room_is() -> None:
    paused = pauses.pause(begun(9), now=10.0).state
    assert paused is not None
    counted = lifecycle.advance(paused, receipt(0), repeated=False, now=11.0).state
    assert counted is not None
    resumed = pauses.resume(counted, now=60.5).state
    assert resumed is not None
    assert (resumed.paused_seconds, resumed.budget_seconds) == (50.5, 0.0)
    spent = Waiting(reason="budget", message="no room", since=70.0)
    waits = pauses.pause(resumed, spent, now=70.0).state
    assert waits is not None
    goes = pauses.resume(waits, now=80.0).state
    assert goes is not None
    assert (goes.paused_seconds, goes.budget_seconds) == (50.5, 10.0)
    again = pauses.pause(goes, now=90.0).state
    assert again is not None
    ended = endings.end(again, "cancelled", None, now=95.0).state
    assert ended is not None
    assert (ended.paused_seconds, ended.budget_seconds) == (55.5, 10.0)


def test_what_waits_for_its_month_is_paused_and_waits_again_when_it_is_resumed() -> None:
    wait = Waiting(reason="budget", message="no room", since=1.0)
    held = beginning.begin(None, job(4), shards=3, rows=9, ending=None, now=1.0, waiting=wait).state
    assert held is not None
    assert budget.awaits_room(held)
    assert pauses.pause(held, wait, now=1.5) == lifecycle.NOTHING, "it waits already"
    paused = pauses.pause(held, now=2.5).state
    assert paused is not None
    assert paused.budget_seconds == 1.5
    assert (paused.paused, paused.waiting, budget.awaits_room(paused)) == (True, None, None)
    assert pauses.pause(paused, now=2.5) == lifecycle.NOTHING
    begins = beginning.begin(paused, job(4), shards=3, rows=9, ending=None, now=2.0)
    assert begins == lifecycle.NOTHING, "somebody had it announced before it was paused"
    again = pauses.resume(paused, now=3.0)
    assert again.state is not None
    assert (again.shards, budget.awaits_room(again.state) is not None) == ((), True)
    assert pauses.resume(again.state, now=4.0) == lifecycle.NOTHING
    begun = beginning.begin(again.state, job(4), shards=3, rows=9, ending=None, now=5.0)
    assert begun.state is not None
    assert (begun.shards, begun.state.paused) == ((0, 1, 2), False)
    assert (begun.state.budget_seconds, begun.state.paused_seconds) == (3.5, 0.5)
    hours = Waiting(reason="hours", since=5.0, until=7.1234567)
    closed = lifecycle.wait(begun.state, hours).state
    assert closed is not None
    ended = endings.end(closed, "cancelled", None, now=9.0).state
    assert ended is not None
    assert (ended.budget_seconds, ended.closed_seconds) == (3.5, 2.123)
    told = [(each.at, each.paused, each.reason) for each in begun.state.pauses]
    assert told == [
        (1.0, True, "budget"),
        (2.5, True, None),
        (3.0, True, "budget"),
        (5.0, False, None),
    ]


def test_a_state_remembers_the_latest_pauses_and_no_more() -> None:
    state: JobState | None = begun(9)
    for at in range(50):
        assert state is not None
        state = pauses.pause(state, now=float(at)).state
        state = pauses.resume(state, now=at + 0.5).state
    assert state is not None
    assert len(state.pauses) == pauses.MOST_CHANGES
    assert [(each.at, each.paused) for each in state.pauses[-2:]] == [(49.0, True), (49.5, False)]
