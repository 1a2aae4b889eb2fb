"""What the URL of an upstream must be like before a key goes there. Told at start, not in the first call."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from .errors import ConfigError
from .hostnames import is_public, read_host
from .transport import split

# Names in a query under which services take a key. A URL is kept, shown and logged by more people than a header.
KEYS_IN_QUERY = frozenset({"key", "api_key", "api-key", "apikey", "token", "access_token", "auth", "subscription-key"})


def check_upstream(url: str, *, carries_key: bool, plain_http: bool) -> None:
    """Raise ConfigError when `url` holds a key, or a key would go over the open network as plain text.

    plain_http: the operator says that the way there is safe.
    """
    origin, _ = split(url)
    if any(name.lower() in KEYS_IN_QUERY for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)):
        raise ConfigError(
            "A base URL has a key in its query, where logs and proxies would keep it.",
            hint="put it into LLM_API_KEY, or the api_key of the Model",
        )
    host = read_host(origin.authority)
    if origin.scheme == "http" and carries_key and not plain_http and (host is None or is_public(host)):
        raise ConfigError(
            "Keys would go to a base URL in plain http, where anybody on the way can read them.",
            hint="write https://..., or set FIRSTWORD_PLAIN_HTTP=true when the whole way is yours",
        )
