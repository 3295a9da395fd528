# SPDX-License-Identifier: Apache-2.0
import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent_runtime.security import Caller, KeyFiles, RuntimeKeys
from agent_runtime.security.keys import ApiKey, new_key, parse_key
from agent_runtime.security.runtime_keys import LOOK_SECONDS
from kubeagents_api.access import KeyRequest, Principal, RequestLimit
from kubeagents_api.errors import KeyNotFoundError
from kubeagents_api.model import LocalRef

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def clock(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self.seconds)


class Kept:
    """What several pods share."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.asked = 0

    async def get(self, key_id: str) -> str | None:
        self.asked += 1
        await asyncio.sleep(0)
        return self.texts.get(key_id)

    async def all(self) -> Mapping[str, str]:
        return self.texts

    async def put(self, key_id: str, text: str) -> None:
        self.texts[key_id] = text

    async def remove(self, *key_ids: str) -> int:
        return sum(self.texts.pop(key_id, None) is not None for key_id in key_ids)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def keys(kept: Kept, time: Time) -> RuntimeKeys:
    return RuntimeKeys(kept, clock=time.clock, now=time.now)


def parsed(text: str) -> ApiKey:
    key = parse_key(text)
    assert key is not None
    return key


def test_a_key_shows_its_id_and_hides_its_secret() -> None:
    key = new_key()

    assert parse_key(key.text) == key
    assert key.text.split("_")[1] == key.id
    assert key.secret not in repr(key)
    assert new_key() != new_key()
    assert parse_key("something else") is None


async def test_a_key_that_was_made_tells_whose_it_is(keys: RuntimeKeys) -> None:
    limit = RequestLimit(requests=3)
    wanted = KeyRequest(principal="ci", role="developer", queues=["orders"], rate_limit=limit)
    made = await keys.make(wanted, by="maria")

    assert await keys.caller(parsed(made.key)) == Caller(
        "ci", "developer", frozenset({"orders"}), rate_limit=limit, key=made.id
    )
    assert (made.created_by, made.created_at) == ("maria", BEGIN + timedelta(seconds=100))


async def test_only_a_digest_is_kept(keys: RuntimeKeys, kept: Kept) -> None:
    made = await keys.make(KeyRequest(principal="ci", role="viewer"), by="maria")

    assert parsed(made.key).secret not in str(kept.texts)
    assert [info.id for info in await keys.list()] == [made.id]


async def test_another_secret_with_a_known_id_is_nobodys(keys: RuntimeKeys) -> None:
    made = await keys.make(KeyRequest(principal="ci", role="admin"), by="maria")

    assert await keys.caller(ApiKey(made.id, new_key().secret)) is None


async def test_a_key_ends_when_it_expires(keys: RuntimeKeys, time: Time) -> None:
    until = BEGIN + timedelta(seconds=101)
    made = await keys.make(KeyRequest(principal="ci", role="admin", expires_at=until), by="maria")

    assert await keys.caller(parsed(made.key)) is not None
    time.seconds = 101
    assert await keys.caller(parsed(made.key)) is None


async def test_what_one_pod_makes_or_revokes_another_knows_soon(kept: Kept, time: Time, keys: RuntimeKeys) -> None:
    other = RuntimeKeys(kept, clock=time.clock, now=time.now)
    made = await keys.make(KeyRequest(principal="ci", role="admin"), by="maria")
    assert await other.caller(parsed(made.key)) is not None

    await keys.revoke(made.id)
    assert await keys.caller(parsed(made.key)) is None
    time.seconds += LOOK_SECONDS
    assert await other.caller(parsed(made.key)) is None
    with pytest.raises(KeyNotFoundError, match=made.id):
        await other.revoke(made.id)


async def test_many_calls_with_one_key_ask_once(keys: RuntimeKeys, kept: Kept, time: Time) -> None:
    made = await keys.make(KeyRequest(principal="ci", role="admin"), by="maria")

    await asyncio.gather(*(keys.caller(parsed(made.key)) for _ in range(50)))
    await keys.caller(ApiKey(made.id, new_key().secret))
    assert kept.asked == 1
    time.seconds += LOOK_SECONDS
    await keys.caller(parsed(made.key))
    assert kept.asked == 2


def principal(name: str) -> Principal:
    return Principal(name=name, role="developer", keys_from=LocalRef(name=f"{name}-keys"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("ci", "maria"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_keys_of_secrets_are_found_by_their_principal(folder: Path, time: Time) -> None:
    (folder / "ci" / "old").write_text("an-old-key-of-ci-1\n")
    (folder / "ci" / "new").write_text("a-new-key-of-ci-2")
    (folder / "ci" / "..data").write_text("not-a-key-but-the-kubelets")
    files = KeyFiles(folder, [principal("ci"), principal("maria")], clock=time.clock)

    found = files.caller("an-old-key-of-ci-1")
    assert found == Caller("ci", "developer", key="old")
    assert files.caller("a-new-key-of-ci-2") == Caller("ci", "developer", key="new")
    assert files.caller("not-a-key-but-the-kubelets") is None


def test_a_secret_that_changes_needs_no_restart(folder: Path, time: Time) -> None:
    (folder / "ci" / "key").write_text("the-first-key-of-ci")
    files = KeyFiles(folder, [principal("ci")], clock=time.clock)
    assert files.caller("the-first-key-of-ci") is not None

    (folder / "ci" / "key").unlink()
    (folder / "ci" / "next").write_text("the-second-key-of-ci")
    time.seconds += 1
    assert files.caller("the-first-key-of-ci") is None
    assert files.caller("the-second-key-of-ci") is not None


@pytest.mark.parametrize(
    ("content", "complaint"), [(b"short", "it has 5 characters"), (b"\xff" * 20, "cannot be read")]
)
def test_what_is_no_key_is_said_and_keeps_no_other(
    folder: Path, time: Time, caplog: pytest.LogCaptureFixture, content: bytes, complaint: str
) -> None:
    (folder / "ci" / "bad").write_bytes(content)
    (folder / "ci" / "good").write_text("a-good-key-of-ci-1")
    files = KeyFiles(folder, [principal("ci")], clock=time.clock)

    assert files.caller("a-good-key-of-ci-1") is not None
    assert complaint in caplog.text
    assert "a-good-key" not in caplog.text


def test_one_key_of_two_principals_belongs_to_the_first(
    folder: Path, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("ci", "maria"):
        (folder / name / "key").write_text("the-same-key-for-both")
    files = KeyFiles(folder, [principal("ci"), principal("maria")], clock=time.clock)

    found = files.caller("the-same-key-for-both")
    assert found is not None
    assert found.name == "ci"
    assert "ci has the same one" in caplog.text
