"""What a message may lead the model's server to: public hosts, or those that the operator named, and never inward."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from caller import Caller, turn
from served import Served

from firstword import App, ConfigError
from firstword.addresses import NEVER, PRIVATE
from firstword.errors import BadRequest
from firstword.links import Links
from firstword.server.openapi import LINK
from firstword.testing import Upstream

Json = dict[str, Any]

PNG = "data:image/png;base64,iVBORw0KGgo="
WHERE = "messages[0].content[1].image_url.url"


def image(url: Any) -> Json:
    return {"type": "image_url", "image_url": {"url": url}}


def shown(*parts: Any) -> list[Json]:
    """Return one message with these parts behind its words."""
    return [{"role": "user", "content": [{"type": "text", "text": "See http://127.0.0.1/ and file:///etc"}, *parts]}]


def refused(messages: list[Json], *hosts: str) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        Links(hosts).check(messages)
    return caught.value


# --- what leads inward ----------------------------------------------------------------------------

INWARD = [
    "http://127.0.0.1/",
    "https://127.0.0.1:8443/x.png",
    "http://10.0.0.1/",
    "http://192.168.1.1/",
    "http://172.16.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://100.64.0.1/",
    "http://100.100.100.200/",
    "http://168.63.129.16/",
    "http://0.0.0.0/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://192.0.2.1/",
    "http://198.18.0.1/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b:1::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:7f00:1::]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fc00::1]/",
    "http://[fd00:ec2::254]/",
    "http://[ff02::1]/",
    "http://[fec0::1]/",
    "http://localhost/",
    "http://LOCALHOST:8000/",
    "http://localhost./",
    "http://a.localhost/",
    "http://127.0.0.1./",
    "http://redis:6379/",
    "http://metadata/",
    "http://metadata.google.internal/",
    "http://vllm.models.svc.cluster.local/",
    "http://kubernetes.default.svc/",
    "http://printer.local/",
    "http://router.lan/",
    "http://nas.home.arpa/",
]
UNREADABLE = [
    # Addresses as only some readers read them.
    "http://127.1/",
    "http://0x7f.1/",
    "http://0x7f000001/",
    "http://0x/",
    "http://2130706433/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://127.0.0.01/",
    "http://8.8.8.8.8/",
    "http://example.0x7f000001/",
    "http://[127.0.0.1]/",
    "http://[::1/",
    "http://::1/",
    # Which part is the host, two readers may see differently.
    "http://8.8.8.8@127.0.0.1/",
    "http://127.0.0.1@example.com/",
    "http://user:word@example.com/",
    "http://example.com:80@127.0.0.1/",
    "http://example.com:http/",
    "http://example.com:99999999/",
    "http://exam%70le.com/",
    "http://127%2e0.0.1/",
    "http://-example.com/",
    "http://example..com/",
    "http:///",
    "http://",
    "http://.",
    "http://:80/",
    # Look-alikes, which become others when they are normalised.
    "http://ⓛocalhost/",
    "http://127。0。0。1/",
    "http://１２７.0.0.1/",
    "http://bücher.example/",
    "http://exam\u00adple.com/",
    "http://example\u3002com/",
    f"http://{'a.' * 200}com/",
]
NO_URLS = [
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "file:etc/passwd",
    "gopher://example.com/",
    "ftp://example.com/x.png",
    "ldap://example.com/",
    "javascript:alert(1)",
    "blob:https://example.com/1",
    "s3://bucket/x.png",
    "//example.com/x.png",
    "/etc/passwd",
    "x.png",
    "http:example.com/x.png",
    "http:/example.com/x.png",
    "http:\\\\example.com\\x.png",
    "http://example.com\\@127.0.0.1/",
    "http://example.com/\\..",
    " http://example.com/x.png",
    "http://example.com/ x.png",
    "ht\ntp://example.com/",
    "http://exam\tple.com/",
    "http://example.com/\0",
    "\x00http://example.com/",
    "https://example.com/" + "x" * 9000,
]


@pytest.mark.parametrize("url", [*INWARD, *UNREADABLE])
def test_an_image_cannot_lead_inward(url: str) -> None:
    """Private, metadata, IPv4 in the dress of IPv6, names of one's own network, hosts that are read in two ways."""
    for closed_or_open in ((), ("*",), ("cdn.example.com",)):
        error = refused(shown(image(url)), *closed_or_open)
        assert error.param == WHERE and WHERE in error.message
        assert "leads to a host" in error.message and url not in str(error)


@pytest.mark.parametrize("url", NO_URLS)
def test_what_is_no_web_address_is_refused(url: str) -> None:
    """Files, other schemes, paths, and what only a careless reader takes for a URL."""
    error = refused(shown(image(url)))
    assert error.message == f"`{WHERE}` is not a URL that the model's server may fetch." and error.param == WHERE


def test_the_ends_of_every_refused_network_are_refused() -> None:
    """The look-up is that of the tools, for both families."""
    for network in (*PRIVATE, *NEVER):
        for address in (network[0], network[-1]):
            refused(shown(image(f"http://{f'[{address}]' if address.version == 6 else address}/x")))


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/cat.png",
        "http://example.com",
        "HTTPS://Example.COM:8443/cat.png?signature=a%2Fb&x=http://127.0.0.1/#top",
        "https://example.com./cat.png",
        "https://xn--bcher-kva.example/x",
        "https://example.com?x",
        "https://a_b.example.com/früh.png",
        "https://8.8.8.8/x",
        "https://[2606:4700::1111]:443/x",
        "https://1.example.com/x",
        "https://internal.example.com/x",
        PNG,
        "DATA:image/png;base64,AAAA",
        "data:text/plain,http://127.0.0.1/",
    ],
)
def test_public_images_and_data_pass(url: str) -> None:
    """What engines send; a URL within another one's query is nobody's host."""
    Links().check(shown(image(url)))
    Links(["*"]).check(shown(image(url)))


@pytest.mark.parametrize("url", ["https://example.com/cat.png?x#y", "http://a.b.example.com:8443", "data:,x"])
def test_what_the_document_allows_passes(url: str) -> None:
    """A client that is made of `/openapi.json` sends what the document says of an image."""
    assert re.search(LINK, url)
    Links().check(shown(image(url)))


@pytest.mark.parametrize(
    "url", ["", "00", "cat.png", "ftp://example.com/x", "https://localhost/x", "https://10.0.0.1/x"]
)
def test_what_is_refused_is_not_allowed_by_the_document(url: str) -> None:
    """Likewise; what only `links.py` knows (names of one's own network) is not in it."""
    assert not re.search(LINK, url)
    assert refused(shown(image(url)))


# --- where it may stand ---------------------------------------------------------------------------

INNER = "http://169.254.169.254/x"


@pytest.mark.parametrize(
    ("part", "where"),
    [
        ({"type": "image_url", "image_url": INNER}, "image_url"),
        ({"type": "text", "text": "x", "image_url": {"url": INNER}}, "image_url.url"),
        ({"type": "input_image", "image_url": INNER}, "image_url"),
        ({"type": "video_url", "video_url": {"url": INNER}}, "video_url.url"),
        ({"type": "audio_url", "audio_url": {"url": INNER}}, "audio_url.url"),
        ({"type": "input_audio", "input_audio": {"data": INNER, "format": "wav"}}, "input_audio.data"),
        ({"type": "input_audio", "input_audio": {"url": INNER}}, "input_audio.url"),
        ({"type": "file", "file": {"file_data": INNER}}, "file.file_data"),
        ({"type": "file", "file": {"file_url": INNER}}, "file.file_url"),
        ({"type": "image", "source": {"type": "url", "url": INNER}}, "source.url"),
        ({"type": "image", "image": INNER}, "image"),
        ({"type": "video", "video": [PNG, INNER]}, "video[1]"),
        ({"type": "x", "image_URL": {"URI": INNER}}, "image_URL.URI"),
        (
            {"type": "tool_result", "content": [{"type": "image_url", "image_url": {"url": INNER}}]},
            "content[0].image_url.url",
        ),
        ({"type": "document", "text": {"url": INNER}}, "text.url"),
        ({"type": "image", "image": "FILE:/etc/passwd"}, "image"),
        ({"type": "image", "image": " file://x"}, "image"),
        ({"type": "image", "image": "http:169.254.169.254"}, "image"),
        ({"type": "image", "image": "gopher:\\\\x"}, "image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_field_of_every_part_is_looked_at(part: Json, where: str) -> None:
    """The dialects of OpenAI, vLLM, Anthropic, Qwen and OpenRouter, and what none of them knows yet."""
    assert refused(shown(part)).param == f"messages[0].content[1].{where}"


def test_messages_of_every_role_are_looked_at() -> None:
    """A later message, and one that calls itself the assistant's, or a tool's."""
    for role in ("system", "assistant", "tool", "developer", "x"):
        messages = [{"role": "user", "content": "http://127.0.0.1/"}, {"role": role, "content": [image(INNER)]}]
        assert refused(messages).param == "messages[1].content[0].image_url.url"


def test_a_name_of_the_caller_s_own_is_not_repeated() -> None:
    """The field's name holds words, or a key that was pasted."""
    for name in ("sk-live-4f2a9c1d", "x" * 200, "früh"):
        error = refused(shown({"type": "x", name: {"url": INNER}}))
        assert error.param == "messages[0].content[1].url" and name not in str(error)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": "file:///etc/passwd"},
        {"type": "refusal", "refusal": "http://127.0.0.1/"},
        {"type": "file", "file": {"file_id": "file-1", "filename": "Note: a/b.pdf", "title": "file: a report"}},
        {"type": "input_audio", "input_audio": {"data": "//uQxAAAAAAAAAAA/+8=", "format": "mp3"}},
        {"type": "image", "image": "/9j/4AAQSkZJRgABAQ=="},
        {"type": "image_url", "image_url": None},
        {"type": "image_url", "image_url": {"url": 7}},
        {"type": "x", "at": "12:30", "ratio": "a:b", "deep": [[[[{"n": None}]]]]},
        "text",
        None,
    ],
    ids=str,
)
def test_words_ids_and_base64_pass(part: Any) -> None:
    """JPEG begins with a slash in base64, MP3 with two."""
    Links().check(shown(part))


def test_nesting_does_not_break_it() -> None:
    """A part that is as deep as JSON can be."""
    part: Any = {"url": INNER}
    for _ in range(50_000):
        part = [part]
    refused(shown(part))


# --- the operator's list --------------------------------------------------------------------------


def test_only_named_hosts_pass_when_some_are_named() -> None:
    """A bucket, all below a domain, and a store in one's own network."""
    hosts = ["cdn.example.com", "*.images.example.org", "minio", "10.0.0.5", "[fd00::5]"]
    links = Links(hosts)
    for host in ("cdn.example.com", "CDN.example.com.", "a.images.example.org", "a.b.images.example.org", "minio:9000"):
        links.check(shown(image(f"https://{host}/x")))
    links.check(shown(image("http://10.0.0.5/x"), image("http://[fd00::5]/x"), image(PNG)))
    for host in (
        "example.com",
        "images.example.org",
        "evilimages.example.org",
        "cdn.example.com.evil.example",
        "10.0.0.6",
    ):
        refused(shown(image(f"https://{host}/x")), *hosts)


def test_a_star_beside_a_name_means_the_public_ones_and_that_one() -> None:
    """A store within, and everybody's images."""
    links = Links(["*", "minio"])
    links.check(shown(image("https://example.com/x"), image("http://minio/x")))
    refused(shown(image("http://redis/x")), "*", "minio")


def test_metadata_cannot_be_named() -> None:
    """It holds no image of anybody's."""
    for host in ("169.254.169.254", "100.100.100.200", "[fd00:ec2::254]", "[fe80::1]"):
        refused(shown(image(f"http://{host}/x")), host)


def test_none_lets_data_through_only() -> None:
    """The model's server fetches nothing at all."""
    Links(["none"]).check(shown(image(PNG)))
    refused(shown(image("https://example.com/x")), "none")


@pytest.mark.parametrize(
    "host",
    ["", "https://example.com", "example.com:443", "a b", "*.", "*.10.0.0.1", "a.*.com", "::1", "user@x", "ü.de"],
)
def test_a_host_that_is_none_is_a_mistake(host: str) -> None:
    """A URL was pasted, or a port; the message names the setting and shows no value."""
    with pytest.raises(ConfigError, match="FIRSTWORD_IMAGE_HOSTS") as caught:
        Links(["fine.example", host])
    assert caught.value.hint and not (host and host in caught.value.message)


# --- end to end -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/chat/completions", "/agora/chat/completions", "/vapi/s/one/chat/completions"])
async def test_such_a_turn_never_reaches_the_model(
    serve: Callable[[App], Served], upstream: Upstream, marker: str, path: str
) -> None:
    """Agora's own shape too; `params`, which is lifted to the root, is no way round it."""
    caller = Caller(serve(App(base_url=upstream.base_url)).url)
    inner = {"role": "user", "content": [{"type": "image", "image_url": INNER}]}
    for body in (
        turn(messages=[inner], user=marker),
        {**turn(user=marker), "messages": [inner, {"role": "user", "content": "x"}]},
    ):
        heard = await caller.hears(body, path=path)
        assert (heard.status, heard.error["param"]) == (400, "messages[0].content[0].image_url.url")
        assert b"169.254" not in heard.body
    if path.startswith("/agora"):
        heard = await caller.hears({"params": turn(messages=[inner], user=marker)}, path=path)
        assert heard.status == 400 and heard.error["param"].endswith("image_url.url")
    assert upstream.seen(marker) == []


async def test_a_key_that_is_spelt_out_is_found_too(
    serve: Callable[[App], Served], upstream: Upstream, marker: str
) -> None:
    """JSON has many spellings; what is looked at is what they mean."""
    body = json.dumps(turn(user=marker, messages=[{"role": "user", "content": [image(INNER)]}]))
    body = body.replace("image_url", "image\\u005furl").replace("http:", "\\u0068ttp:").replace("//", "\\/\\/")
    heard = await Caller(serve(App(base_url=upstream.base_url)).url).hears(body.encode())
    assert heard.status == 400 and upstream.seen(marker) == []


async def test_the_operator_s_list_is_read_from_the_environment(
    serve: Callable[[App], Served], upstream: Upstream, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FIRSTWORD_IMAGE_HOSTS=none, in front of a model that must not fetch."""
    monkeypatch.setenv("FIRSTWORD_IMAGE_HOSTS", "none")
    caller = Caller(serve(App(base_url=upstream.base_url)).url)
    heard = await caller.hears(turn(messages=shown(image("https://example.com/x")), user=marker))
    assert heard.status == 400 and "FIRSTWORD_IMAGE_HOSTS" in heard.error["message"]
    heard = await caller.hears(turn(messages=shown(image(PNG)), user=marker))
    [record] = upstream.seen(marker)
    assert heard.status == 200 and record.body["messages"][0]["content"][1] == image(PNG)
