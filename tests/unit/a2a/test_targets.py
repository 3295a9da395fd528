# SPDX-License-Identifier: Apache-2.0
"""Where push notifications may go."""

import pytest

from agent_runtime.adapters.a2a.targets import Targets
from kubeagents_api.errors import InvalidTaskError


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://2852039166/",
        "http://[fe80::1%25eth0]/",
        "http://[::ffff:169.254.169.254]/",
        "http://[2002:a9fe:a9fe::1]/",
        "http://[fd00:ec2::254]/",
        "http://100.100.100.200/",
        "http://0.0.0.0/",
        "http://[::]/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://127.0.0.1:6379/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://user@192.0.2.1/",
        "http://192.0.2.1:99999/",
        "ftp://192.0.2.1/",
        "http:///path",
        "//192.0.2.1/",
        "http://[::1",
        "http://192.0.2.1/" + "x" * 3000,
        "",
    ],
)
async def test_a_forbidden_target_is_refused(url: str) -> None:
    with pytest.raises(InvalidTaskError) as caught:
        await Targets(loopback=False).check(url, field="url")
    assert caught.value.field == "url"


@pytest.mark.parametrize(
    "url", ["http://10.0.0.7:8080/hook", "https://192.168.1.1/", "http://[fd12::1]/", "http://8.8.8.8/"]
)
async def test_private_and_public_addresses_are_allowed(url: str) -> None:
    await Targets(loopback=False).check(url, field="url")


async def test_the_machine_itself_is_allowed_on_a_laptop_only() -> None:
    await Targets(loopback=True).check("http://127.0.0.1:8080/", field="url")
    with pytest.raises(InvalidTaskError, match=r"127\.0\.0\.1, where nothing may be sent"):
        await Targets(loopback=False).check("http://127.0.0.1:8080/", field="url")
