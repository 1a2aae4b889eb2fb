"""Where the store is, as a URL says it."""

from __future__ import annotations

import pytest

from firstword import ConfigError
from firstword.shared.address import Address, read


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("redis://store", Address("store")),
        ("redis://:p%40ss@store:7000/3", Address("store", 7000, password="p@ss", database=3)),
        ("redis://me:pass@store?db=2", Address("store", user="me", password="pass", database=2)),
        ("rediss://store", Address("store", is_secure=True)),
        ("redis://[::1]:7000", Address("::1", 7000)),
        ("unix:///run/store.sock", Address(path="/run/store.sock")),
        (
            "unix://me:pass@/run/store.sock?db=1",
            Address(path="/run/store.sock", user="me", password="pass", database=1),
        ),
    ],
)
def test_a_url_is_read(url: str, meant: Address) -> None:
    """The forms that every client of such a server reads."""
    assert read(url) == meant
    assert "pass" not in str(read(url)) + repr(read(url))


@pytest.mark.parametrize(
    "url",
    [
        "store:6379",
        "http://:s3cret@store",
        "redis://:s3cret@store:port",
        "redis://:s3cret@store:99999",
        "redis://:s3cret@store/zero",
        "redis://:s3cret@store/-1",
        "redis://:s3cret@[::1",
        "redis://:s3cret@store?socket_timeout=1",
        "rediss://:s3cret@store?ssl_cert_reqs=none",
        "rediss://:s3cret@store?ssl_ca_certs=/s3cret/nowhere.pem",
        "unix://",
        "unix://s3cret/run/store.sock",
    ],
)
def test_what_cannot_be_read_is_told_without_its_password(url: str) -> None:
    """An operator mistypes it."""
    with pytest.raises(ConfigError) as caught:
        read(url)
    assert "FIRSTWORD_REDIS_URL" in str(caught.value) and "s3cret" not in str(caught.value)
    assert caught.value.hint
