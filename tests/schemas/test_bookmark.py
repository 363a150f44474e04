"""Bookmarks as files: whole, or refused."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.bookmark import MAGIC, Bookmark, decode_bookmark, encode_bookmark, newest_only
from schemas.checkpoint import Checkpoint, encode_checkpoint
from schemas.errors import Malformed, Reason
from schemas.snapshot import Cut, snapshot_records


def cut(shard: int, end_ms: int) -> Cut:
    return Cut(shard, end_ms, end_ms // 1000, 2, {0: end_ms}, {}, None, [], [])


def saved(*cuts: Cut, writer: bytes = b"w") -> dict[bytes, bytes]:
    return {key: value for each in cuts for key, value in snapshot_records(each, writer, limit=40)}


def bookmark() -> Bookmark:
    checkpoints = {p: encode_checkpoint(Checkpoint(10 * p, 15_000, 15_000, 15_000)) for p in range(2)}
    return Bookmark("app", "app-spans", 3, "app-deltas", 2, checkpoints, saved(cut(0, 15_000), cut(1, 30_000)))


def encoded(of: Bookmark) -> bytes:
    return b"".join(encode_bookmark(of))


def decoded(content: bytes) -> Bookmark:
    return decode_bookmark(io.BytesIO(content))


def test_what_was_saved_is_read_again_and_equal_bookmarks_are_equal_files() -> None:
    own = bookmark()
    assert decoded(encoded(own)) == own
    assert encoded(decoded(encoded(own))) == encoded(own)
    assert {p: each.next_offset for p, each in own.decoded_checkpoints().items()} == {0: 0, 1: 10}
    assert {shard: each.end_ms for shard, each in own.cuts().items()} == {0: 15_000, 1: 30_000}


def test_a_shard_that_has_saved_nothing_is_begun_at_its_beginning() -> None:
    own = Bookmark("app", "s", 1, "d", 2, {}, saved(cut(1, 30_000)))
    assert list(decoded(encoded(own)).cuts()) == [1]


def test_of_a_table_only_the_newest_complete_snapshots_are_kept() -> None:
    newer = saved(cut(0, 45_000))
    half = dict(list(saved(cut(0, 60_000), writer=b"z").items())[:-1])
    table = saved(cut(0, 15_000), cut(1, 30_000)) | newer | half | {b"checkpoint-0": b""}
    assert newest_only(table, 2) == newer | saved(cut(1, 30_000))


@given(st.data())
def test_a_file_that_was_cut_or_changed_is_refused(data: st.DataObject) -> None:
    content = bytearray(encoded(bookmark()))
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans(), "cut"):
        del content[at:]
    else:
        content[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Malformed):
        decoded(bytes(content))


def test_what_follows_the_end_is_refused() -> None:
    with pytest.raises(Malformed, match="isn't whole, or was changed"):
        decoded(encoded(bookmark()) + b"x")


@given(st.binary(max_size=200))
def test_other_files_are_refused(content: bytes) -> None:
    for each in (content, MAGIC + content):
        with pytest.raises(Malformed):
            decoded(each)


def test_a_newer_format_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schemas.bookmark.FORMAT_VERSION", 2)
    content = encoded(bookmark())
    monkeypatch.undo()
    with pytest.raises(Malformed, match="bookmark format 2, known is 1") as refused:
        decoded(content)
    assert refused.value.reason == Reason.VERSION
