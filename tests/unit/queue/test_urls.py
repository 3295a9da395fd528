# SPDX-License-Identifier: Apache-2.0
"""URLs of Redis: what they mean, and what is said of bad ones."""

import pytest

from agent_runtime.queue.urls import Node, RedisUrl, parse_url
from kubeagents_api.errors import RedisUrlError


@pytest.mark.parametrize(
    ("url", "meaning"),
    [
        ("redis://host", RedisUrl("server", (Node("host", 6379),))),
        ("redis://[::1]:7000/3", RedisUrl("server", (Node("::1", 7000),), db=3)),
        ("redis://:p%40ss%2Fword@host", RedisUrl("server", (Node("host", 6379),), login={"password": "p@ss/word"})),
        (
            "rediss://me:pw@host/0?ssl_ca_certs=/ca.pem&ssl_check_hostname=false",
            RedisUrl(
                "server",
                (Node("host", 6379),),
                tls=True,
                login={"username": "me", "password": "pw"},
                tls_options={"ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False},
            ),
        ),
        ("unix:///run/redis.sock?db=2", RedisUrl("unix", path="/run/redis.sock", db=2)),
        (
            "redis+sentinel://me:pw@a,b:26380/main/2?sentinel_username=s&sentinel_password=p%23",
            RedisUrl(
                "sentinel",
                (Node("a", 26379), Node("b", 26380)),
                master="main",
                db=2,
                login={"username": "me", "password": "pw"},
                sentinel_login={"username": "s", "password": "p#"},
            ),
        ),
        (
            "rediss+sentinel://a/main?wait_replicas=1",
            RedisUrl("sentinel", (Node("a", 26379),), master="main", tls=True, wait_replicas=1),
        ),
        (
            "redis+cluster://:pw@a:7000,[::1]:7001,c",
            RedisUrl("cluster", (Node("a", 7000), Node("::1", 7001), Node("c", 6379)), login={"password": "pw"}),
        ),
        ("rediss+cluster://a/0", RedisUrl("cluster", (Node("a", 6379),), tls=True)),
    ],
)
def test_a_good_url_means(url: str, meaning: RedisUrl) -> None:
    assert parse_url(url) == meaning


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "wrong scheme: for one server write redis://"),
        ("valkey://host", r"for Sentinels write redis\+sentinel://"),
        ("redis-sentinel://:s3cret@host/main", r"for a cluster write redis\+cluster://"),
        ("host:6379", "wrong scheme"),
        ("redis://", "no host: write redis://"),
        ("redis://:s3cret@", "no host"),
        ("redis://:s3cret#1@host:6379", "malformed|no host"),
        ("redis://:s3cret/1@host:6379", "malformed.*%2F for /"),
        ("redis://host:port", "malformed"),
        ("redis://host:70000", "malformed"),
        ("redis://a,,b", "malformed"),
        ("redis://a,b", r"names several hosts: for Sentinels write redis\+sentinel://"),
        ("redis://host/zero", "not a number"),
        ("redis://host/0/1", "too many parts"),
        ("redis://host/0?socket_timeout=1", "socket_timeout"),
        ("redis://host?ssl_ca_certs=/ca.pem", "need rediss instead of redis"),
        ("rediss://host?ssl_cert_reqs=s3cret", "one of none, optional, required"),
        ("rediss://host?ssl_check_hostname=0", "must be true or false"),
        ("rediss://host/0?decode_responses=true", "decode_responses.*options are ssl_ca_certs"),
        ("redis://host?sentinel_password=s3cret", "sentinel_password"),
        ("redis://host?wait_replicas=some", "a number from 0 to 9"),
        ("redis://host#s3cret", "after #"),
        ("unix://", "no path"),
        ("unix://run/redis.sock", "begins with a slash: write unix://"),
        ("redis+sentinel://a:26379,b:26379", "what the Sentinels call the master: write redis"),
        ("redis+sentinel://a/main/zero", "not a number"),
        ("redis+sentinel://:s3cret@/main", r"no host: write redis\+sentinel://"),
        ("redis+cluster://a,b/3", "a cluster has none but 0"),
        ("redis+cluster://a:x", r"malformed: write redis\+cluster://"),
    ],
)
def test_a_bad_url_is_refused_with_what_to_write_and_without_being_shown(url: str, complaint: str) -> None:
    with pytest.raises(RedisUrlError, match=complaint) as refused:
        parse_url(url)
    assert "s3cret" not in str(refused.value)


def test_passwords_do_not_show_in_what_is_printed() -> None:
    url = parse_url("rediss+sentinel://me:s3cret@a/main?sentinel_password=s3cret&ssl_keyfile=s3cret")
    assert "s3cret" not in repr(url)
