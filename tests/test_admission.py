"""Who may speak to the server, which key goes on to the provider, and that no key goes anywhere else."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from caller import Caller, Heard, turn
from served import Served

from firstword import App, ConfigError, Forbidden, Model, Unauthorized
from firstword.admission import Gate, is_loopback, read_key
from firstword.testing import Record, Upstream, script

HELD = "sk-held-by-the-server"
Start = Callable[[App], Served]

# --- the key of a request ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"authorization": "Bearer sk-1"}, "sk-1"),
        ({"authorization": "bearer sk-1"}, "sk-1"),
        ({"authorization": "BEARER  sk-1 "}, "sk-1"),
        ({"authorization": "sk-1"}, "sk-1"),
        ({"api-key": "sk-1"}, "sk-1"),
        ({"x-api-key": " sk-1 "}, "sk-1"),
        ({"api-key": "", "x-api-key": "sk-1"}, "sk-1"),
        ({"authorization": "Bearer sk-1", "api-key": "sk-2"}, "sk-1"),
        ({"authorization": "Bearer ", "api-key": "sk-2"}, "sk-2"),
        ({"authorization": "", "x-api-key": "sk-2"}, "sk-2"),
        ({"authorization": "Bearer a.b_c-d~e+f/g="}, "a.b_c-d~e+f/g="),
        ({}, None),
        ({"authorization": ""}, None),
        ({"authorization": "Bearer"}, None),
        ({"authorization": "Bearer  "}, None),
        ({"api-key": " "}, None),
    ],
)
def test_a_key_is_read_from_where_engines_put_it(headers: dict[str, str], key: str | None) -> None:
    """A Bearer token, a bare value, `api-key` or `x-api-key`; Agora's default is an empty key."""
    assert read_key(headers) == key


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Basic dXNlcjpwYXNz"},
        {"authorization": "Bearer one two"},
        {"authorization": "Bearer k\u00e9y"},
        {"authorization": "Bearer a\tb"},
        {"authorization": "Bearer a\x7f"},
        {"api-key": "a\r\nx-evil: 1"},
        {"x-api-key": "a b"},
    ],
)
def test_a_value_that_could_not_be_sent_on_is_no_key(headers: dict[str, str]) -> None:
    """The message tells how to send one, and repeats nothing."""
    with pytest.raises(Unauthorized) as caught:
        read_key(headers)

    assert "Authorization: Bearer <key>" in str(caught.value)
    assert not any(value in str(caught.value) for value in headers.values())


# --- the gate ------------------------------------------------------------------------------------------------

LOCAL = ("127.0.0.1", 50000)
AWAY = ("203.0.113.9", 50000)


def test_without_a_key_of_its_own_the_server_passes_the_callers_on() -> None:
    """Also when there is none: the provider, or a local one that wants no key, is to judge."""
    gate = Gate([], holds_key=False, open_to_all=False)

    assert gate.admit({"authorization": "Bearer sk-1"}, AWAY).key == "sk-1"
    assert gate.admit({}, AWAY).key is None
    gate.check_bind("0.0.0.0")


def test_a_gate_key_lets_in_and_goes_no_further() -> None:
    """Two keys, either is good; spaces around one in the settings are not part of it."""
    gate = Gate(["one", " two "], holds_key=True, open_to_all=False)

    assert [gate.admit({"authorization": f"Bearer {key}"}, AWAY).key for key in ("one", "two")] == [None, None]
    assert gate.admit({"x-api-key": "one"}, None).key is None
    for wrong in ({}, {"authorization": "Bearer three"}, {"authorization": "Bearer on"}, {"api-key": "one,two"}):
        with pytest.raises(Unauthorized):
            gate.admit(wrong, LOCAL)
    gate.check_bind("0.0.0.0")


def test_gate_keys_stand_before_openness() -> None:
    """Whoever sets both has changed their mind in one place only: the stricter one counts."""
    with pytest.raises(Unauthorized):
        Gate(["one"], holds_key=True, open_to_all=True).admit({}, LOCAL)


def test_an_open_server_does_not_look_at_keys() -> None:
    """Somebody else guards the door, and their Authorization header is theirs."""
    gate = Gate([], holds_key=True, open_to_all=True)

    assert gate.admit({"authorization": "Basic dXNlcjpwYXNz", "x-forwarded-for": "1.2.3.4"}, AWAY).key is None
    gate.check_bind("0.0.0.0")


@pytest.mark.parametrize("keys", [[""], ["one", ""], ["one", "  "]])
def test_an_empty_gate_key_is_a_mistake(keys: list[str]) -> None:
    """A stray comma would let in whoever sends an empty key."""
    with pytest.raises(ConfigError, match="FIRSTWORD_KEYS"):
        Gate(keys, holds_key=True, open_to_all=False)


HELD_ONLY = Gate([], holds_key=True, open_to_all=False)


@pytest.mark.parametrize("client", [LOCAL, ("127.8.9.1", 1), ("::1", 1), None], ids=str)
@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]", "[::1]:8000", "LOCALHOST:1"]
)
def test_a_held_key_serves_this_machine(host: str, client: Any) -> None:
    """Whatever key the caller sends; a Unix socket has no client address."""
    assert HELD_ONLY.admit({"host": host, "authorization": "Bearer any thing"}, client).key is None
    assert HELD_ONLY.admit({"host": host, "origin": f"http://{host}"}, client).key is None


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ({}, AWAY),
        ({}, ("2001:db8::1", 1)),
        ({}, ("::ffff:203.0.113.9", 1)),
        ({"host": "example.com"}, LOCAL),
        ({"host": "127.0.0.1.example.com:8000"}, LOCAL),
        ({"host": "localhost.example.com"}, LOCAL),
        ({"host": ""}, LOCAL),
        ({"host": "[2001:db8::1]:8000"}, LOCAL),
        ({"host": "0.0.0.0:8000"}, LOCAL),
        ({"forwarded": "for=127.0.0.1"}, LOCAL),
        ({"x-forwarded-for": "127.0.0.1"}, LOCAL),
        ({"x-forwarded-host": "localhost"}, LOCAL),
        ({"x-real-ip": "127.0.0.1"}, LOCAL),
        ({"origin": "https://example.com"}, LOCAL),
        ({"origin": "null"}, LOCAL),
        ({"origin": "http://localhost.example.com:8000"}, LOCAL),
        ({"origin": ""}, LOCAL),
    ],
)
def test_a_held_key_serves_nobody_else(headers: dict[str, str], client: Any) -> None:
    """Tunnels, port forwards, rebound names and pages in the operator's own browser all come from loopback."""
    with pytest.raises(Forbidden, match="FIRSTWORD_KEYS"):
        HELD_ONLY.admit({"host": "localhost:8000", "authorization": f"Bearer {HELD}", **headers}, client)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *((name, True) for name in ("127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost", "Localhost")),
        *((name, False) for name in ("0.0.0.0", "::", "", "10.0.0.1", "localhost.example.com", "example.com", "1")),
    ],
)
def test_listening_beyond_this_machine_with_a_held_key_is_refused(host: str, local: bool) -> None:
    """The message names both settings that mend it, and never the key."""
    assert is_loopback(host) == local
    if local:
        HELD_ONLY.check_bind(host)
        return
    with pytest.raises(ConfigError) as caught:
        HELD_ONLY.check_bind(host)
    assert all(word in str(caught.value) for word in ("LLM_API_KEY", "FIRSTWORD_KEYS", "--open"))


def test_an_empty_key_is_no_key() -> None:
    """`App(api_key=os.getenv("MY_KEY", ""))` where it is not set: callers bring their own."""
    assert App(api_key="").gate.admit({"authorization": "Bearer sk-1"}, AWAY).key == "sk-1"


# --- end to end --------------------------------------------------------------------------------------------


class Line:
    """A server with the scripted model behind it."""

    def __init__(self, server: Served, upstream: Upstream) -> None:
        self.server = server
        self._upstream = upstream
        self._marker = uuid.uuid4().hex

    async def says(self, *, key: str | None = None, headers: dict[str, str] | None = None, **fields: Any) -> Heard:
        """Say something, with a key."""
        sent = {"authorization": f"Bearer {key}"} if key else {}
        body = turn(**{"user": self._marker, **fields})
        return await Caller(self.server.url).hears(body, headers={**sent, **(headers or {})})

    def reached(self) -> list[Record]:
        """The requests that reached the model's server."""
        return self._upstream.seen(self._marker, until="now")

    def keys(self) -> list[str | None]:
        """The Authorization headers that reached it."""
        return [record.header("authorization") for record in self.reached()]


@pytest.fixture(scope="module")
def _held(upstream: Upstream) -> Iterator[Served]:
    server = Served(App(base_url=upstream.base_url, api_key=HELD))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def _plain(upstream: Upstream) -> Iterator[Served]:
    server = Served(App(base_url=upstream.base_url))
    yield server
    server.stop()


@pytest.fixture
def held(_held: Served, upstream: Upstream) -> Line:
    """A server that holds a key, and answers this machine only."""
    return Line(_held, upstream)


@pytest.fixture
def plain(_plain: Served, upstream: Upstream) -> Line:
    """A server that passes the callers' keys on."""
    return Line(_plain, upstream)


async def test_a_held_key_goes_upstream_and_the_callers_never(held: Line) -> None:
    """On this machine, without a gate: whatever the caller sends, the provider sees the server's key."""
    assert (await held.says(key="sk-caller")).status == 200
    assert (await held.says(headers={"api-key": "sk-caller", "x-api-key": "sk-caller"})).status == 200
    assert (await held.says()).status == 200
    assert held.keys() == [f"Bearer {HELD}"] * 3
    assert not [value for record in held.reached() for _, value in record.headers if "sk-caller" in value]


@pytest.mark.parametrize(
    "headers", [{"x-forwarded-for": "1.2.3.4"}, {"host": "a.example"}, {"origin": "https://a.example"}]
)
async def test_a_held_key_is_not_lent_to_the_internet(held: Line, headers: dict[str, str]) -> None:
    """A tunnel leads to the port, or a page in the operator's browser posts to it."""
    heard = await held.says(headers=headers)

    assert (heard.status, heard.error["code"], held.reached()) == (403, "forbidden", [])
    assert (await Caller(held.server.url).hears(path="/models", method="GET", headers=headers)).status == 403


async def test_with_gate_keys_nobody_else_reaches_the_model(serve: Start, upstream: Upstream) -> None:
    """No key, a wrong one, and the provider's very key are all refused; then a good one."""
    line = Line(serve(App(base_url=upstream.base_url, api_key=HELD, keys=["gate-1", "gate-2"])), upstream)

    for key in (None, "wrong", HELD):
        heard = await line.says(key=key)
        assert (heard.status, heard.error["code"]) == (401, "invalid_api_key")
        assert (heard.error["type"], heard.headers["x-should-retry"]) == ("authentication_error", "false")
        assert not any(word.encode() in heard.body for word in ("gate-1", "wrong", HELD))
    assert line.reached() == []
    assert (await line.says(key="gate-2", headers={"x-forwarded-for": "1.2.3.4"})).status == 200
    assert line.keys() == [f"Bearer {HELD}"]


async def test_an_open_server_lends_its_key_to_all(serve: Start, upstream: Upstream) -> None:
    """`open=True`: the operator said so."""
    line = Line(serve(App(base_url=upstream.base_url, api_key=HELD, open=True)), upstream)

    assert (await line.says(headers={"x-forwarded-for": "1.2.3.4", "authorization": "Basic YTpi"})).status == 200
    assert line.keys() == [f"Bearer {HELD}"]


def echoes(key: str) -> list[tuple[script.Script, int]]:
    """Ways in which a model's server repeats the key that it was sent, and the status of each."""
    said = f"Incorrect API key provided: {key}."
    nested = {
        "error": {"message": said, "type": key, "param": key, "code": key, "more": [{"headers": f"Bearer {key}"}]}
    }
    event = script.error_event(said, type="invalid_request_error")
    return [
        (script.json_document(nested, 400), 400),
        (script.json_document({"detail": [{"input": key}]}, 422), 422),
        (script.json_document({"error": said}, 400), 400),
        (script.json_document({"error": {"message": "x" * 1990 + key}}, 400), 400),
        (script.json_document([key], 404), 404),
        ([script.head(400, body="length", length=len(said)), script.send(said), script.end()], 400),
        (script.events(event), 400),
        (script.events(script.role(), script.text("Hi"), event), 200),
    ]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_key_that_the_upstream_repeats_is_not_repeated(
    held: Line, plain: Line, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A careless server puts the Authorization header into its error: neither the held key nor a caller's comes out."""
    caplog.set_level("DEBUG")
    for line, key in ((held, None), (plain, "sk-caller-secret")):
        for said, status in echoes(key or HELD):
            heard = await line.says(key=key, script=said, stream=stream)
            assert heard.status == (status if stream or status != 200 else 400)
            assert b"error" in heard.body
            assert not any(part in heard.body for part in (b"sk-held", b"sk-caller"))
    assert "turn ended" in caplog.text
    assert not any(part in caplog.text for part in ("sk-held", "sk-caller"))


@pytest.mark.parametrize("status", [401, 403])
async def test_whose_key_was_refused_decides_who_is_told(held: Line, plain: Line, status: int) -> None:
    """A caller cannot mend the server's own key: theirs is a 502, and no reason to try again."""
    said = script.refuses(status, "Incorrect API key.", type="authentication_error", code="invalid_api_key")
    ours = await held.says(script=said)
    theirs = await plain.says(key="sk-caller", script=said)

    assert (ours.status, ours.headers["x-should-retry"]) == (502, "false")
    assert "LLM_API_KEY" in ours.error["message"]
    assert (theirs.status, theirs.headers["x-should-retry"]) == (status, "false")
    assert (theirs.error["message"], theirs.error["code"]) == ("Incorrect API key.", "invalid_api_key")


async def test_without_any_key_a_provider_is_not_even_dialled(serve: Start, upstream: Upstream) -> None:
    """The caller is told at once how to send one; with a key the silent address is dialled, and the demo needs none."""
    app = App(base_url="http://192.0.2.1/v1", warm=False, connect_timeout=0.1)
    line = Line(serve(app), upstream)

    heard = await line.says()
    assert (heard.status, heard.headers["x-should-retry"]) == (401, "false")
    assert "Authorization: Bearer" in heard.error["message"]
    assert (await line.says(key="sk-caller")).status in (502, 504)
    assert (await line.says(model="demo", pace=0)).status == 200


async def test_each_key_goes_to_its_own_server_only(serve: Start, upstream: Upstream) -> None:
    """A model elsewhere, without a key of its own, gets neither LLM_API_KEY nor the caller's."""
    other = upstream.base_url.replace("/v1", "/other/v1")
    models = [Model("here"), Model("there", base_url=other), Model("own", base_url=other, api_key="sk-own")]
    line = Line(serve(App(models, base_url=upstream.base_url, api_key=HELD)), upstream)

    for model in ("here", "there", "own", "here"):
        assert (await line.says(key="sk-caller", model=model)).status == 200
    sent = [(record.path.partition("/v1")[0], record.header("authorization")) for record in line.reached()]
    assert sent == [("", f"Bearer {HELD}"), ("/other", None), ("/other", "Bearer sk-own"), ("", f"Bearer {HELD}")]


async def test_a_models_own_key_closes_the_door_as_the_servers_does(serve: Start, upstream: Upstream) -> None:
    """It is a key that strangers could use as well."""
    app = App([Model("own", api_key="sk-own")], base_url=upstream.base_url)

    with pytest.raises(ConfigError):
        app.gate.check_bind("0.0.0.0")
    line = Line(serve(app), upstream)
    assert (await line.says(headers={"x-forwarded-for": "1.2.3.4"})).status == 403
    assert line.reached() == []


async def test_a_model_that_nobody_pays_for_is_the_operators_to_mend(serve: Start) -> None:
    """Gate keys, and a model elsewhere without a key: the caller who sent one must not be told to send one."""
    app = App([Model("there", base_url="http://192.0.2.1/v1")], keys=["gate-1"], warm=False)
    heard = await Caller(serve(app).url).says(headers={"authorization": "Bearer gate-1"}, model="there")

    assert (heard.status, heard.headers["x-should-retry"]) == (502, "false")
    assert "no key for this model" in heard.error["message"] and "api_key" in heard.error["message"]
