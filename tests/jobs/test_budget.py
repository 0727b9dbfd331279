"""A cap is never exceeded, whatever attempts, crashes and receipts come in whatever order."""

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from schemas.budgets import NOTHING_SPENT, JobBudget, Spend, total
from schemas.jobs import JobOptions, parse_options
from schemas.money import PinnedPrice, micros
from schemas.results import Counts, Receipt, Tokens
from workers.jobs.budget import (
    allot,
    allotment,
    budget_of,
    count,
    give_back,
    left,
    may_cost,
    status,
)

PRICES = {"phi": PinnedPrice(input=130_000, output=520_000, currency="USD")}
ALL = Spend(100, 1000)


def receipt(shard: int, attempt: str, spent: Spend | None) -> Receipt:
    return Receipt(shard=shard, attempt=attempt, counts=Counts(), tokens=Tokens(), spent=spent)


def capped(tokens: int | None = 100, cost: int | None = 1000) -> JobBudget:
    return JobBudget(max_tokens=tokens, max_cost=cost)


def begins(options: JobOptions) -> JobBudget | None:
    return budget_of(options, PRICES, may_cost(options, None))


def taken(budget: JobBudget) -> Spend:
    return budget.spent.plus(total(each.whole for each in budget.allotted))


def begun(budget: JobBudget, shard: int, attempt: str, want: Spend, **more: Any) -> JobBudget:
    given = {"charged": {}, "need": Spend(1, 1), **more}
    return allot(budget, shard, attempt, want=want, **given)


def test_only_a_capped_job_has_a_budget() -> None:
    assert begins(JobOptions(max_tokens=5)) is None
    made = begins(JobOptions(max_cost="0.0005", max_total_tokens=7))
    # A price is millionths for a million tokens: a token's is millionths of millionths.
    assert made == JobBudget(max_tokens=7, max_cost=500_000_000, currency="USD")


@pytest.mark.parametrize(
    ("given", "kept"),
    [("12.5", "12.500000"), (5, "5.000000"), (0.25, "0.250000"), ("1000000", "1000000.000000")],
)
def test_a_cap_is_an_amount_or_a_number(given: object, kept: str) -> None:
    assert parse_options({"max_cost": given}).max_cost == kept


@pytest.mark.parametrize("given", [0, -1, "1e30", "nan", True, "a", 0.0000001, "1000001", [5]])
def test_what_is_no_cap_is_refused_by_name(given: object) -> None:
    with pytest.raises(ValueError, match="max_cost"):
        parse_options({"max_cost": given})


def test_a_grant_is_what_is_wanted_or_what_is_left() -> None:
    one = begun(capped(), 0, "a", Spend(70, 700))
    two = begun(one, 1, "b", Spend(70, 200))
    assert [each.open for each in two.allotted] == [Spend(70, 700), Spend(30, 200)]
    assert left(two) == Spend(0, 100)
    # What is too little for the smallest row would only be kept from others.
    three = begun(two, 2, "c", Spend(70, 200), need=Spend(5, 5))
    own = allotment(three, 2)
    assert own is not None
    assert own.open == NOTHING_SPENT


def test_what_is_left_is_shared_by_those_who_are_out() -> None:
    one = begun(capped(), 0, "a", Spend(70, 700), sharers=4)
    two = begun(one, 1, "b", Spend(70, 700), sharers=4, need=Spend(30, 1))
    # The most that one call can cost is given beyond the part: it would fit nowhere else either.
    assert [each.open for each in two.allotted] == [Spend(25, 250), Spend(30, 187)]


def test_a_repeated_swap_changes_nothing() -> None:
    one = begun(capped(), 0, "a", Spend(70, 700))
    assert begun(one, 0, "a", Spend(70, 700)) is one
    back = give_back(one, 0, "a", Spend(20, 200))
    assert give_back(back, 0, "a", Spend(20, 200)) is back
    assert taken(back) == Spend(20, 200)


def test_the_next_attempt_begins_with_what_the_journals_come_to() -> None:
    one = begun(capped(), 0, "a", Spend(70, 700))
    two = begun(one, 0, "b", Spend(10, 10), charged={"a": Spend(40, 400)})
    assert taken(two) == Spend(50, 410)
    # A lot that was written after the lease can have paid for nothing: no more was allotted.
    late = begun(one, 0, "b", Spend(10, 10), charged={"a": Spend(90, 900)})
    assert taken(late) == Spend(80, 710)


def test_an_attempt_that_takes_the_place_of_a_later_one_takes_nothing_from_it() -> None:
    one = begun(capped(), 0, "b", Spend(70, 700))
    # It read the journals before "b" began, and was frozen until now.
    late = begun(one, 0, "a", Spend(10, 10), charged={"earlier": Spend(5, 50)})
    assert taken(late) == Spend(80, 710)


def test_an_attempt_that_has_lost_its_place_changes_nothing() -> None:
    one = begun(capped(), 0, "a", Spend(70, 700))
    two = begun(one, 0, "b", Spend(60, 600), charged={"a": Spend(40, 400)})
    # With the place, its receipt would count, which tells nothing of what "b" has spent.
    assert begun(two, 0, "a", Spend(80, 800), charged=None) is two
    assert give_back(two, 0, "a", Spend(1, 1)) is two


def test_a_receipt_of_the_last_attempt_counts_as_it_tells() -> None:
    one = begun(capped(), 0, "a", Spend(70, 700))
    counted = count(one, receipt(0, "a", Spend(30, 300)))
    assert (counted.spent, counted.allotted) == (Spend(30, 300), ())
    assert count(counted, receipt(0, "a", Spend(30, 300))) is counted


def test_a_receipt_of_an_earlier_attempt_counts_all_that_the_last_one_may_spend() -> None:
    one = begun(capped(), 0, "a", Spend(70, 700))
    two = begun(one, 0, "b", Spend(60, 600), charged={"a": Spend(40, 400)})
    assert count(two, receipt(0, "a", Spend(45, 450))).spent == Spend(100, 1000)


def test_who_heard_nothing_of_its_allotment_gives_back_nothing_of_what_others_spent() -> None:
    one = begun(capped(), 0, "b", Spend(70, 700))
    # An earlier attempt wakes and takes the place; it has lost its lease, and knows nothing of "b".
    two = begun(one, 0, "a", Spend(60, 600), charged={})
    assert give_back(two, 0, "a", NOTHING_SPENT) == give_back(two, 0, "a", Spend(70, 700))
    assert taken(give_back(two, 0, "a", NOTHING_SPENT)) == Spend(70, 700)


def test_a_job_tells_what_is_spent_and_reserved() -> None:
    options = JobOptions(max_cost="1")
    made = begins(options)
    assert made is not None
    told = status(begun(made, 0, "a", Spend(10, 1_500_001)), options)
    assert (told.max_cost, told.cost_reserved, told.cost_spent) == (
        "1.000000",
        "0.000002",
        "0.000000",
    )
    assert (told.tokens_reserved, told.max_total_tokens) == (10, None)
    assert (told.on_budget, told.of_month) == ("stop", False)
    # Each rounded up by itself, a cap of which all is spent or reserved would be told to be passed.
    full = begun(made.model_copy(update={"spent": Spend(1, 500_001)}), 0, "a", Spend(9, 10**12))
    told = status(full, options)
    assert micros(told.cost_spent or "") + micros(told.cost_reserved or "") == 10**6
    # What a job that names no cap holds of its tenant's month is its cap all the same.
    held = status(JobBudget(max_cost=10**12), JobOptions(on_budget="pause"))
    assert (held.max_cost, held.on_budget, held.of_month) == ("1.000000", "pause", True)
    assert not status(JobBudget(max_tokens=9), JobOptions(max_total_tokens=9)).of_month


spends = st.builds(Spend, st.integers(0, 60), st.integers(0, 600))
needs = st.builds(Spend, st.integers(0, 9), st.integers(0, 90))
places = st.integers(0, 1)


class Cap(RuleBasedStateMachine):
    """Attempts begin, ask, freeze or die, give back and write receipts, at two shards at a time.

    `billed` is what endpoints took; `lots` what journals hold of each attempt, at most its own. A
    shard that is done makes room for the next, so that no rule runs out of work.
    """

    @initialize(tokens=st.integers(1, 400), cost=st.integers(1, 4000))
    def begin_job(self, tokens: int, cost: int) -> None:
        self.budget = JobBudget(max_tokens=tokens, max_cost=cost)
        self.limit = Spend(tokens, cost)
        self.billed = NOTHING_SPENT
        self.shards = [0, 1]
        self.lots: dict[int, dict[str, Spend]] = defaultdict(dict)
        self.used: dict[str, Spend] = {}
        self.base: dict[str, Spend] = {}
        self.open: dict[str, Spend] = {}
        self.holder: dict[int, str] = {}
        self.frozen: dict[int, str] = {}
        self.names = 0

    @rule(at=places, want=spends, need=needs, sharers=st.integers(1, 3))
    def attempt_begins(self, at: int, want: Spend, need: Spend, sharers: int) -> None:
        """Whoever asked so far has died, or is frozen."""
        shard = self.shards[at]
        if shard in self.holder:
            self.frozen[shard] = self.holder.pop(shard)
        self.names += 1
        name = f"a{self.names}"
        charged = dict(self.lots[shard])
        how: Any = {"charged": charged, "want": want, "need": need, "sharers": sharers}
        self.budget = allot(self.budget, shard, name, **how)
        own = allotment(self.budget, shard)
        if own is not None and own.attempt == name:
            self.holder[shard] = name
            self.base[name], self.open[name] = own.spent, own.open
            self.used[name] = self.lots[shard][name] = NOTHING_SPENT

    @rule(at=places, spend=needs, kept=st.booleans())
    def calls_are_made(self, at: int, spend: Spend, kept: bool) -> None:
        shard = self.shards[at]
        if (name := self.holder.get(shard)) is None:
            return
        bound = self.used[name].plus(spend)
        if not bound.within(self.open[name]):
            return
        self.lots[shard][name] = self.lots[shard][name].most(bound)
        cost = spend if kept else Spend(spend.tokens // 2, spend.cost // 2)
        self.used[name] = self.used[name].plus(cost)
        self.billed = self.billed.plus(cost)

    @rule(at=places, want=spends, need=needs)
    def attempt_wants_more(self, at: int, want: Spend, need: Spend) -> None:
        shard = self.shards[at]
        if (name := self.holder.get(shard)) is None:
            return
        self.budget = allot(self.budget, shard, name, charged=None, want=want, need=need)
        own = allotment(self.budget, shard)
        assert own is not None
        assert self.open[name].within(own.open), "what was given is not taken away"
        self.open[name] = own.open

    @rule(at=places, want=spends, need=needs, writes=st.booleans())
    def frozen_one_wakes(self, at: int, want: Spend, need: Spend, writes: bool) -> None:
        """It has lost its lease, and does not know it: it wants more, or writes its receipt."""
        shard = self.shards[at]
        if (name := self.frozen.get(shard)) is None:
            return
        before = allotment(self.budget, shard)
        self.budget = allot(self.budget, shard, name, charged=None, want=want, need=need)
        if before is None or before.attempt != name:
            assert allotment(self.budget, shard) == before, "it changes nothing of another's"
        if writes:
            self._done(at, name, self.base[name].plus(self.used[name]))

    @rule(at=places)
    def attempt_ends(self, at: int) -> None:
        shard = self.shards[at]
        if (name := self.holder.pop(shard, None)) is not None:
            self.lots[shard][name] = self.used[name]
            spent = self.base[name].plus(self.used[name])
            self.budget = give_back(self.budget, shard, name, spent)

    @rule(at=places, extra=spends)
    def a_zombie_grows_its_lot(self, at: int, extra: Spend) -> None:
        shard = self.shards[at]
        dead = sorted(self.lots[shard].keys() - {self.holder.get(shard)})
        if dead:
            self.lots[shard][dead[0]] = self.lots[shard][dead[0]].plus(extra)

    @rule(at=places, earlier=st.booleans())
    def a_receipt_is_counted(self, at: int, earlier: bool) -> None:
        name = self.holder.get(self.shards[at])
        if name is None or earlier:
            self._done(at, "somebody earlier", NOTHING_SPENT)
        else:
            self._done(at, name, self.base[name].plus(self.used[name]))

    def _done(self, at: int, name: str, spent: Spend) -> None:
        self.budget = count(self.budget, receipt(self.shards[at], name, spent))
        self.shards[at] = max(self.shards) + 1

    @invariant()
    def the_cap_holds(self) -> None:
        if hasattr(self, "budget"):
            assert self.billed.within(taken(self.budget))
            assert taken(self.budget).within(self.limit)


TestCap = Cap.TestCase
TestCap.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
