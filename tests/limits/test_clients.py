"""What the line of a client in the file of keys says of limits, at a real server: each is held to its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from caller import Caller
from served import Served

from firstword import App, ConfigError, sign_url
from firstword.admission.keys import line_of, new_key
from firstword.testing import Upstream, script

SAYS = script.events(script.role(), script.words("Hi."), script.finish(), script.usage(10, 10), script.done())

SECRET = "a-secret-for-urls-of-at-least-thirty-two-bytes"


async def test_each_client_is_held_to_its_line(
    serve: Callable[[App], Served], upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One may make two requests a minute, one spend a hundredth of a cent, the third what the setting says: one."""
    keys = {name: new_key() for name in ("often", "poor", "usual")}
    limits = {"often": ["requests=2"], "poor": ["requests=9", "budget=0.0001"], "usual": []}
    lines = [line_of(name, key, *limits[name]) for name, key in keys.items()]
    (tmp_path / "keys").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "keys").chmod(0o600)
    (tmp_path / "prices").write_text("* input=5 output=5\n", encoding="utf-8")
    monkeypatch.setenv("FIRSTWORD_KEYS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("FIRSTWORD_PRICES", str(tmp_path / "prices"))
    monkeypatch.setenv("FIRSTWORD_REQUESTS_PER_MINUTE_PER_KEY", "1")
    served = serve(App(base_url=upstream.base_url, api_key="held"))

    async def answers(name: str) -> list[str]:
        headers = {"authorization": f"Bearer {keys[name]}"}
        heard = [await Caller(served.url).says(headers=headers, script=SAYS) for _ in range(4)]
        return ["answered" if each.status == 200 else each.error["code"] for each in heard]

    assert await answers("often") == ["answered"] * 2 + ["rate_limit_exceeded"] * 2
    assert await answers("poor") == ["answered"] + ["budget_exceeded"] * 3
    assert await answers("usual") == ["answered"] + ["rate_limit_exceeded"] * 3


def test_a_client_s_budget_without_prices_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn of that client would be refused, as what its model costs is not known."""
    (tmp_path / "keys").write_text(line_of("shop", new_key(), "budget=5") + "\n", encoding="utf-8")
    monkeypatch.setenv("FIRSTWORD_KEYS_FILE", str(tmp_path / "keys"))

    with pytest.raises(ConfigError, match="'shop' has a budget, and nothing says what models cost"):
        App(api_key="held")


@pytest.mark.parametrize("scope", ["KEY", "SESSION"])
async def test_a_signed_url_that_names_nobody_is_a_client_of_its_own(
    serve: Callable[[App], Served], upstream: Upstream, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    """An engine makes all its calls from one address; and one call stays one, whatever it says of its channel."""
    monkeypatch.setenv("FIRSTWORD_URL_SECRET", SECRET)
    monkeypatch.setenv(f"FIRSTWORD_REQUESTS_PER_MINUTE_PER_{scope}", "2")
    served = serve(App(base_url=upstream.base_url, api_key="held"))

    async def statuses(session: str) -> list[int]:
        url = urlsplit(sign_url(served.url, session, secret=SECRET))
        path = f"{url.path}?{url.query}"
        heard = [await Caller(served.url).says(path=path, script=SAYS, channel=f"c{each}") for each in range(3)]
        return [each.status for each in heard]

    assert await statuses("call-1") == [200, 200, 429]
    assert await statuses("call-2") == [200, 200, 429]
