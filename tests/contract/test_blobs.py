"""What `workers.ports.Blobs` promises, held against Azurite and against the double.

The double is held to it twice, bare and with (no) faults around it.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile, TemporaryFile

import pytest

from local.azurite import Azurite
from tests.doubles import EffectLog, FaultyBlobs, MemoryBlobs
from workers.adapters.blobs import connect_blobs
from workers.ports import BlobRef, Blobs
from workers.ports.errors import (
    BlobChanged,
    BlobExists,
    BlobMissing,
    LeaseHeld,
    LeaseLost,
    StorageError,
)

LEASE_SECONDS = 15
# Azure folds a backslash into a slash and drops dot segments: nobody can rely on such names.
ODD_NAMES = [
    "ä b/100% #?+&.jsonl",
    "日本/😀.jsonl",
    "a//b",
    "p%20q",
    "%41",
    "a%2Fb",
    "c:d@e!$'()*,;=",
    'quote"<>|.jsonl',
    " spaces ",
    "tab\tname",
    "[x]{y}^`~",
    "trailing/",
]


@dataclass
class Subject:
    """An implementation, a container of its own, and a way to let time pass."""

    blobs: Blobs
    container: str
    elapse: Callable[[float], Awaitable[None]]

    def __call__(self, name: str) -> BlobRef:
        return BlobRef(self.container, name)


@pytest.fixture(params=["memory", "guarded", pytest.param("azurite", marks=pytest.mark.slow)])
def storage(request: pytest.FixtureRequest) -> str | Azurite:
    """A double's name, or the emulator, which is started only where it is wanted."""
    if request.param == "azurite":
        emulator: Azurite = request.getfixturevalue("azurite")
        return emulator
    return str(request.param)


@pytest.fixture
async def at(storage: str | Azurite) -> AsyncIterator[Subject]:
    container = f"c{uuid.uuid4().hex}"
    if isinstance(storage, str):
        passed = [0.0]

        async def elapse(seconds: float) -> None:
            passed[0] += seconds

        memory = MemoryBlobs(lambda: time.time() + passed[0], [container])
        guarded = FaultyBlobs(memory, EffectLog())
        yield Subject(memory if storage == "memory" else guarded, container, elapse)
        return
    async with connect_blobs(storage.connection_string) as blobs:
        await blobs.ensure_containers([container])
        await blobs.ensure_containers([container])  # there already: fine
        yield Subject(blobs, container, asyncio.sleep)


def lease_id() -> str:
    return str(uuid.uuid4())


async def outcomes(*calls: Awaitable[object]) -> list[type | None]:
    results = await asyncio.gather(*calls, return_exceptions=True)
    return [type(result) if isinstance(result, BaseException) else None for result in results]


async def test_what_is_created_is_read(at: Subject) -> None:
    started = time.time()
    etag = await at.blobs.create(at("a/b.json"), b'{"a": 1}', metadata={"Options": "e30", "n": "1"})

    stored, info = await at.blobs.read(at("a/b.json")), await at.blobs.head(at("a/b.json"))

    assert stored.data == b'{"a": 1}'
    assert etag == stored.etag == info.etag
    assert '"' not in etag
    assert info.ref == at("a/b.json")
    assert info.size == 8
    assert dict(info.metadata) == {"options": "e30", "n": "1"}
    assert stored.last_modified == info.last_modified == info.created
    assert stored.last_modified % 1 == stored.server_time % 1 == 0
    assert started - 1 <= stored.last_modified <= stored.server_time <= time.time() + 1


async def test_an_empty_blob_is_a_blob(at: Subject) -> None:
    await at.blobs.create(at("empty"), b"")

    assert (await at.blobs.read(at("empty"))).data == b""
    assert (await at.blobs.head(at("empty"))).size == 0
    assert await at.blobs.read_range(at("empty"), 0, 10) == b""


async def test_create_never_overwrites(at: Subject) -> None:
    etag = await at.blobs.create(at("x"), b"first")

    with pytest.raises(BlobExists):
        await at.blobs.create(at("x"), b"second")

    stored = await at.blobs.read(at("x"))
    assert (stored.data, stored.etag) == (b"first", etag)


async def test_a_file_is_written_whole(at: Subject) -> None:
    with TemporaryFile() as file:
        file.write(b"line\n" * 1000)  # and left at its end

        await at.blobs.create(at("x"), file)
        with pytest.raises(BlobExists):
            await at.blobs.create(at("x"), file)
        await at.blobs.create(at("y"), file)

    for name in ("x", "y"):
        assert (await at.blobs.read(at(name))).data == b"line\n" * 1000


class Kept(SpooledTemporaryFile[bytes]):
    """A file that must stay in memory."""

    def rollover(self) -> None:
        raise AssertionError("the file went to disk")


async def test_what_is_held_in_memory_does_not_go_to_disk_to_be_written(at: Subject) -> None:
    with Kept(max_size=1024 * 1024) as file:
        file.write(b"line\n" * 1000)
        await at.blobs.create(at("x"), file)
    assert (await at.blobs.head(at("x"))).size == 5000


async def test_of_concurrent_creates_one_wins(at: Subject) -> None:
    results = await outcomes(*(at.blobs.create(at("x"), b"%d" % n) for n in range(8)))

    assert sorted(map(str, results)) == sorted(map(str, [None] + [BlobExists] * 7))
    winner = results.index(None)
    assert (await at.blobs.read(at("x"))).data == b"%d" % winner


async def test_replace_needs_the_current_etag(at: Subject) -> None:
    old = await at.blobs.create(at("x"), b"one")

    new = await at.blobs.replace(at("x"), b"two", old)

    assert new != old
    with pytest.raises(BlobChanged):
        await at.blobs.replace(at("x"), b"three", old)
    stored = await at.blobs.read(at("x"))
    assert (stored.data, stored.etag) == (b"two", new)


async def test_of_concurrent_replaces_one_wins(at: Subject) -> None:
    etag = await at.blobs.create(at("x"), b"start")

    results = await outcomes(*(at.blobs.replace(at("x"), b"%d" % n, etag) for n in range(8)))

    assert results.count(None) == 1
    assert results.count(BlobChanged) == 7
    assert (await at.blobs.read(at("x"))).data == b"%d" % results.index(None)


@pytest.mark.parametrize("data", [b"same", b""])
async def test_the_same_bytes_written_again_have_another_etag(at: Subject, data: bytes) -> None:
    old = await at.blobs.create(at("x"), data)

    assert await at.blobs.replace(at("x"), data, old) != old


async def test_replacing_what_is_gone_is_a_change(at: Subject) -> None:
    etag = await at.blobs.create(at("x"), b"one")
    await at.blobs.delete(at("x"))

    with pytest.raises(BlobChanged):
        await at.blobs.replace(at("x"), b"two", etag)
    with pytest.raises(BlobMissing):
        await at.blobs.read(at("x"))


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, 4, b"0123"),
        (3, 4, b"3456"),
        (0, 10, b"0123456789"),
        (8, 100, b"89"),
        (9, 1, b"9"),
        (10, 5, b""),
        (1000, 5, b""),
        (4, 0, b""),
    ],
)
async def test_ranges(at: Subject, offset: int, length: int, expected: bytes) -> None:
    etag = await at.blobs.create(at("x"), b"0123456789")

    assert await at.blobs.read_range(at("x"), offset, length) == expected
    assert await at.blobs.read_range(at("x"), offset, length, etag=etag) == expected


@pytest.mark.parametrize("offset", [0, 5, 10, 1000])
async def test_a_pinned_range_notices_a_change(at: Subject, offset: int) -> None:
    etag = await at.blobs.create(at("x"), b"0123456789")
    await at.blobs.replace(at("x"), b"abcdefghij", etag)

    with pytest.raises(BlobChanged):
        await at.blobs.read_range(at("x"), offset, 5, etag=etag)


async def test_a_pinned_range_of_what_is_gone(at: Subject) -> None:
    etag = await at.blobs.create(at("x"), b"0123456789")
    await at.blobs.delete(at("x"))

    with pytest.raises(BlobMissing):
        await at.blobs.read_range(at("x"), 0, 5, etag=etag)


async def test_what_has_changed_is_not_deleted(at: Subject) -> None:
    old = await at.blobs.create(at("x"), b"one")
    new = await at.blobs.replace(at("x"), b"one", old)

    with pytest.raises(BlobChanged):
        await at.blobs.delete(at("x"), old)
    assert (await at.blobs.read(at("x"))).data == b"one"
    await at.blobs.delete(at("x"), new)
    with pytest.raises(BlobChanged):
        await at.blobs.delete(at("x"), new)
    with pytest.raises(BlobMissing):
        await at.blobs.head(at("x"))


async def test_delete_is_idempotent(at: Subject) -> None:
    await at.blobs.create(at("x"), b"one")

    await at.blobs.delete(at("x"))
    await at.blobs.delete(at("x"))

    with pytest.raises(BlobMissing):
        await at.blobs.head(at("x"))
    await at.blobs.create(at("x"), b"again")


async def test_what_is_missing(at: Subject) -> None:
    for ref in (at("nothing"), BlobRef("no-such-container", "nothing")):
        calls = await outcomes(
            at.blobs.head(ref),
            at.blobs.read(ref),
            at.blobs.read_range(ref, 0, 1),
            at.blobs.append(ref, b"x"),
            at.blobs.acquire_lease(ref, lease_id(), LEASE_SECONDS),
            at.blobs.stage_from(at("target"), "0", ref),
        )
        assert calls == [BlobMissing] * 6
        assert await outcomes(at.blobs.renew_lease(ref, lease_id())) in ([LeaseLost], [BlobMissing])
        await at.blobs.release_lease(ref, lease_id())
        await at.blobs.delete(ref)


async def test_a_missing_container_takes_nothing_and_lists_nothing(at: Subject) -> None:
    ref = BlobRef("no-such-container", "x")
    assert await outcomes(at.blobs.create(ref, b""), at.blobs.create_append(ref)) == [
        BlobMissing,
        BlobMissing,
    ]
    with pytest.raises(BlobMissing):
        [info async for info in at.blobs.list("no-such-container")]


async def test_lists_are_by_name_with_metadata(at: Subject) -> None:
    for name in ("b/2", "a", "b/10", "b/1", "c", "b"):
        await at.blobs.create(at(name), name.encode(), metadata={"Was": name.replace("/", "-")})

    found = [info async for info in at.blobs.list(at.container)]

    assert [info.ref for info in found] == [at(n) for n in ("a", "b", "b/1", "b/10", "b/2", "c")]
    assert [dict(info.metadata) for info in found][2] == {"was": "b-1"}
    assert found[2] == await at.blobs.head(at("b/1"))
    below = [info.ref.name async for info in at.blobs.list(at.container, "b/1")]
    assert below == ["b/1", "b/10"]
    assert [info async for info in at.blobs.list(at.container, "zzz")] == []


@pytest.mark.parametrize("page", [None, 2])
async def test_a_list_may_begin_within_its_prefix(at: Subject, page: int | None) -> None:
    for name in ("a/1", "b/1", "b/3", "b/5", "b/7", "c/1"):
        await at.blobs.create(at(name), b"")

    async def listed(start: str) -> list[str]:
        found = at.blobs.list(at.container, "b/", start=start, page=page)
        return [info.ref.name async for info in found]

    assert await listed("b/3") == ["b/3", "b/5", "b/7"]
    assert await listed("b/4") == ["b/5", "b/7"]
    assert await listed("b/") == ["b/1", "b/3", "b/5", "b/7"]
    assert await listed("b/8") == []


async def test_odd_names_work_everywhere(at: Subject) -> None:
    for name in ODD_NAMES:
        await at.blobs.create(at(name), name.encode())
        assert (await at.blobs.read(at(name))).data == name.encode()
        assert (await at.blobs.head(at(name))).ref.name == name
    ids = [f"{n:05}" for n in range(len(ODD_NAMES))]
    for block, name in zip(ids, ODD_NAMES, strict=True):
        await at.blobs.stage_from(at("to/ä %.jsonl"), block, at(name))

    await at.blobs.commit(at("to/ä %.jsonl"), ids)

    assert (await at.blobs.read(at("to/ä %.jsonl"))).data == "".join(ODD_NAMES).encode()
    listed = {info.ref.name async for info in at.blobs.list(at.container)}
    assert listed == {*ODD_NAMES, "to/ä %.jsonl"}


async def test_appends_add_up_in_order(at: Subject) -> None:
    await at.blobs.create_append(at("log"))
    before = await at.blobs.head(at("log"))

    for line in (b"one\n", b"two\n", b"", b"three\n"):
        await at.blobs.append(at("log"), line)

    stored = await at.blobs.read(at("log"))
    assert stored.data == b"one\ntwo\nthree\n"
    assert before.size == 0
    assert stored.etag != before.etag
    assert await at.blobs.read_range(at("log"), 4, 4) == b"two\n"


async def test_an_append_is_one_piece_of_at_most_4_mib(at: Subject) -> None:
    await at.blobs.create_append(at("log"))
    await at.blobs.append(at("log"), b"x" * 4 * 1024 * 1024)

    with pytest.raises(ValueError, match="4194304"):
        await at.blobs.append(at("log"), b"x" * (4 * 1024 * 1024 + 1))

    assert (await at.blobs.head(at("log"))).size == 4 * 1024 * 1024


async def test_concurrent_appends_are_all_there_whole(at: Subject) -> None:
    await at.blobs.create_append(at("log"))

    await asyncio.gather(*(at.blobs.append(at("log"), b"line %03d\n" % n) for n in range(32)))

    lines = (await at.blobs.read(at("log"))).data.splitlines()
    assert sorted(lines) == [b"line %03d" % n for n in range(32)]


async def test_append_blobs_are_never_emptied(at: Subject) -> None:
    await at.blobs.create_append(at("log"))
    await at.blobs.append(at("log"), b"kept")

    assert await outcomes(
        at.blobs.create_append(at("log")), at.blobs.create(at("log"), b"other")
    ) == [BlobExists, BlobExists]
    assert (await at.blobs.read(at("log"))).data == b"kept"


async def test_only_append_blobs_take_appends(at: Subject) -> None:
    await at.blobs.create(at("x"), b"block blob")

    assert await outcomes(at.blobs.append(at("x"), b"more")) == [StorageError]
    assert await outcomes(at.blobs.create_append(at("x"))) == [BlobExists]


async def test_a_lease_is_one_holder_s(at: Subject) -> None:
    etag = await at.blobs.create(at("x"), b"")
    mine, other = lease_id(), lease_id()

    await at.blobs.acquire_lease(at("x"), mine, LEASE_SECONDS)
    await at.blobs.acquire_lease(at("x"), mine, LEASE_SECONDS)  # the SDK's own repeat
    await at.blobs.renew_lease(at("x"), mine)

    assert await outcomes(
        at.blobs.acquire_lease(at("x"), other, LEASE_SECONDS), at.blobs.renew_lease(at("x"), other)
    ) == [LeaseHeld, LeaseLost]
    await at.blobs.release_lease(at("x"), other)  # lost already: fine, and no effect
    assert await outcomes(at.blobs.acquire_lease(at("x"), other, LEASE_SECONDS)) == [LeaseHeld]
    assert (await at.blobs.head(at("x"))).etag == etag


async def test_of_concurrent_acquires_one_wins(at: Subject) -> None:
    await at.blobs.create(at("x"), b"")

    results = await outcomes(
        *(at.blobs.acquire_lease(at("x"), lease_id(), LEASE_SECONDS) for _ in range(8))
    )

    assert results.count(None) == 1
    assert results.count(LeaseHeld) == 7


async def test_a_released_lease_is_free(at: Subject) -> None:
    await at.blobs.create(at("x"), b"")
    mine, other = lease_id(), lease_id()
    await at.blobs.acquire_lease(at("x"), mine, LEASE_SECONDS)

    await at.blobs.release_lease(at("x"), mine)
    await at.blobs.release_lease(at("x"), mine)

    assert await outcomes(at.blobs.renew_lease(at("x"), mine)) == [LeaseLost]
    await at.blobs.acquire_lease(at("x"), other, LEASE_SECONDS)
    await at.blobs.renew_lease(at("x"), other)


async def test_a_leased_blob_is_closed_to_writes_but_not_to_reads(at: Subject) -> None:
    etag = await at.blobs.create(at("x"), b"kept")
    await at.blobs.create_append(at("log"))
    for name in ("x", "log"):
        await at.blobs.acquire_lease(at(name), lease_id(), LEASE_SECONDS)

    assert await outcomes(
        at.blobs.replace(at("x"), b"new", etag),
        at.blobs.delete(at("x")),
        at.blobs.append(at("log"), b"line"),
        at.blobs.create(at("x"), b"new"),
    ) == [LeaseHeld, LeaseHeld, LeaseHeld, BlobExists]
    assert (await at.blobs.read(at("x"))).data == b"kept"
    assert await at.blobs.read_range(at("x"), 0, 2) == b"ke"


async def test_leases_run_out(at: Subject) -> None:
    mine, other = lease_id(), lease_id()
    etags = {}
    for name in ("untouched", "taken", "written"):
        etags[name] = await at.blobs.create(at(name), b"")
        await at.blobs.acquire_lease(at(name), mine, LEASE_SECONDS)

    await at.elapse(LEASE_SECONDS + 1)

    assert await outcomes(at.blobs.renew_lease(at("untouched"), other)) == [LeaseLost]
    await at.blobs.renew_lease(at("untouched"), mine)
    assert await outcomes(at.blobs.acquire_lease(at("untouched"), other, 60)) == [LeaseHeld]
    await at.blobs.acquire_lease(at("taken"), other, 60)
    assert await outcomes(at.blobs.renew_lease(at("taken"), mine)) == [LeaseLost]
    await at.blobs.release_lease(at("taken"), mine)
    await at.blobs.renew_lease(at("taken"), other)
    await at.blobs.replace(at("written"), b"by somebody", etags["written"])
    assert await outcomes(at.blobs.renew_lease(at("written"), mine)) == [LeaseLost]


async def test_commit_puts_blocks_in_the_order_asked_for(at: Subject) -> None:
    for name in ("one", "two", "three"):
        await at.blobs.create(at(name), f"{name}\n".encode())
    for block, name in (("3", "three"), ("1", "one"), ("2", "one"), ("2", "two")):
        await at.blobs.stage_from(at("all"), block, at(name))

    await at.blobs.commit(at("all"), ["1", "2", "3", "1"])

    assert (await at.blobs.read(at("all"))).data == b"one\ntwo\nthree\none\n"


async def test_what_is_staged_is_not_there_yet(at: Subject) -> None:
    await at.blobs.create(at("part"), b"part")
    await at.blobs.stage_from(at("all"), "1", at("part"))

    assert await outcomes(at.blobs.read(at("all")), at.blobs.head(at("all"))) == [BlobMissing] * 2
    assert [info.ref.name async for info in at.blobs.list(at.container)] == ["part"]


async def test_commit_never_overwrites(at: Subject) -> None:
    await at.blobs.create(at("part"), b"part")
    await at.blobs.stage_from(at("all"), "1", at("part"))
    await at.blobs.commit(at("all"), ["1"])
    await at.blobs.stage_from(at("all"), "1", at("part"))

    with pytest.raises(BlobExists):
        await at.blobs.commit(at("all"), ["1", "1"])

    assert (await at.blobs.read(at("all"))).data == b"part"


async def test_a_commit_leaves_its_metadata(at: Subject) -> None:
    await at.blobs.create(at("part"), b"part")
    await at.blobs.stage_from(at("all"), "1", at("part"))
    await at.blobs.commit(at("all"), ["1"], metadata={"made_of": "part"})
    await at.blobs.commit(at("plain"), [])

    told = [(await at.blobs.head(at(name))).metadata for name in ("all", "plain")]
    assert told == [{"made_of": "part"}, {}]


async def test_of_concurrent_commits_one_wins(at: Subject) -> None:
    await at.blobs.create(at("part"), b"part")
    await at.blobs.stage_from(at("all"), "1", at("part"))

    results = await outcomes(*(at.blobs.commit(at("all"), ["1"]) for _ in range(4)))

    assert results.count(None) == 1
    assert results.count(BlobExists) == 3


async def test_a_block_that_was_never_staged(at: Subject) -> None:
    await at.blobs.create(at("part"), b"part")
    await at.blobs.stage_from(at("all"), "1", at("part"))

    assert await outcomes(at.blobs.commit(at("all"), ["1", "2"])) == [StorageError]
    assert await outcomes(at.blobs.head(at("all"))) == [BlobMissing]


async def test_no_blocks_make_an_empty_blob(at: Subject) -> None:
    await at.blobs.commit(at("all"), [])

    assert (await at.blobs.read(at("all"))).data == b""
