# SPDX-License-Identifier: Apache-2.0
"""The Lua files and the table in scripts.py say the same."""

import re
from importlib.resources import files

import pytest

from agent_runtime.queue import scripts
from agent_runtime.queue.keys import Keys
from agent_runtime.queue.scripts import SCRIPTS, Held, Script, Settled, Submitted, source
from tests.support.redis_server import RedisServer

each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)


def header(script: Script) -> dict[str, str]:
    """The comment at the beginning, cut into its parts."""
    text = re.split(r"^(?!--)", source(script.name), maxsplit=1, flags=re.MULTILINE)[0]
    comment = re.sub(r"^-- ?", "", text, flags=re.MULTILINE)
    parts = re.split(r"^(KEYS|ARGV|Guarantee|Returns)\b:?", comment, flags=re.MULTILINE)
    return {"Summary": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def test_every_file_is_in_the_table() -> None:
    folder = files("agent_runtime.queue").joinpath("lua")
    assert {entry.name for entry in folder.iterdir() if entry.is_file()} == {f"{s.name}.lua" for s in SCRIPTS}


@each_script
def test_the_header_is_complete(script: Script) -> None:
    parts = header(script)
    assert all(parts[part].strip() for part in ("Summary", "KEYS", "ARGV", "Guarantee", "Returns"))


@each_script
def test_the_header_names_the_keys_and_arguments_of_the_table(script: Script) -> None:
    parts = header(script)
    assert tuple(parts["KEYS"].split()) == script.keys
    fixed = parts["ARGV"].splitlines()[0].split()
    assert tuple(fixed if fixed != ["(none)"] else []) == script.arguments


@each_script
def test_every_key_of_a_script_is_used_by_it(script: Script) -> None:
    body = script.text.split("\n", 1)[1]
    for key in script.keys:
        assert re.search(rf"\b{key}\b", re.sub(r"--.*", "", body)), key


@each_script
def test_the_server_computes_the_digest_that_we_send(script: Script, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        assert client.script_load(script.text) == script.digest


@pytest.mark.parametrize(
    ("script", "codes"),
    [
        (scripts.SUBMIT, Submitted),
        (scripts.EXTEND, Held),
        (scripts.RELEASE, Held),
        (scripts.SETTLE, Settled),
    ],
    ids=lambda value: getattr(value, "name", None) or value.__name__,
)
def test_the_header_names_the_return_codes(script: Script, codes: type[Submitted | Held | Settled]) -> None:
    returns = header(script)["Returns"]
    for code in codes:
        assert re.search(rf"\b{code.value}\b[^A-Z]*\b{code.name}\b", returns), code


def test_all_keys_of_a_queue_share_one_hash_tag() -> None:
    keys = Keys("default", "jobs")
    parts = {part for script in SCRIPTS for part in script.keys}
    names = [keys.name(part) for part in parts] + [keys.bell("a:echo")]
    assert {re.findall(r"\{(.*?)\}", name)[0] for name in names} == {"default/jobs"}
    assert len(set(names)) == len(names)
