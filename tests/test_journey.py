"""A row's way through the code does not grow unseen."""

from benchmarks.journey import HERE, journey

# What docs/decisions.md says of it, and a little more: a way that grows further is to be shortened.
MOST_FILES, MOST_MOVES = 36, 210


async def test_following_a_row_takes_no_reader_further_than_it_did() -> None:
    made = await journey(HERE)
    assert len(made.files) <= MOST_FILES, sorted(made.files)
    assert made.moves <= MOST_MOVES
