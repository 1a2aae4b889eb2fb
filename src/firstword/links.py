"""Where the parts of a message may lead the model's server: the images, sound and files that it fetches by itself.

Pure. A server in our network that fetches what a caller names is a door into that network. So a part that leads to an
address or a name of one's own network is refused, whoever the model is. Names are not looked up here: the model's
server does that for itself, and could get another answer (docs/decisions/0036-links-in-messages.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from .addresses import may_reach
from .errors import BadRequest
from .hostnames import ANY, is_address, is_public, matches, read_host, read_patterns

SETTING: Final = "FIRSTWORD_IMAGE_HOSTS"
NONE: Final = "none"  # as the only host: parts hold their data, and lead nowhere
MAX_URL: Final = 8 * 1024  # signs; one that holds its data begins with `data:`, and is not looked at any further
LOOKED_AT: Final = 64  # signs at the start of what is no URL, as far as its name says

# The words of a part, which nobody fetches.
_WORDS: Final = frozenset({"text", "refusal"})
_NAMES: Final = ("url", "uri", "href")  # how the name of a field ends that holds a URL
# In a field of another name: what most readers take for a URL. Base64 holds no colon.
_leads = re.compile(r"[\x00-\x20]*(?:[a-z][a-z0-9+.-]*:[\x00-\x20]*[/\\]|(?:https?|ftp|file|gopher):\S)", re.I).match
_reads = re.compile(r"https?://([^/?#]*)(?:[/?#]|$)", re.I).match
_is_plain = re.compile(r"[\x21-\x5b\x5d-\x7e\u00a0-\U0010ffff]*").fullmatch  # no blank, no control sign, no backslash


class Links:
    """What the parts of messages may lead to. `hosts`: only to these, or to any public one when there are none.

    One's own hosts are let through when they are named there; metadata and link-local addresses never are.
    Raises ConfigError.
    """

    def __init__(self, hosts: Sequence[str] = ()) -> None:
        self._is_closed = list(hosts) == [NONE]
        self._hosts = () if self._is_closed else read_patterns(hosts, SETTING)

    def check(self, messages: Sequence[Any]) -> None:
        """Raise BadRequest, which names the field and never the URL, when a message leads where it may not.

        A message of words alone costs a look at its type.
        """
        for at, each in enumerate(messages):
            content = each.get("content") if type(each) is dict else None
            if type(content) is not list:
                continue  # what is no list of parts leads nowhere: that is nearly every message
            for where, value, is_url in _texts(content, f"messages[{at}].content"):
                if is_url or _leads(value[:LOOKED_AT]):
                    self._check(value, where)

    def _check(self, url: str, where: str) -> None:
        if url[:5].lower() == "data:":
            return
        found = _reads(url) if len(url) <= MAX_URL and _is_plain(url) else None
        if found is None:
            raise BadRequest(
                f"`{where}` is not a URL that the model's server may fetch.",
                param=where,
                hint="send https://..., or the data itself as data:image/png;base64,...",
            )
        host = read_host(found[1])
        if host is None or not self._may_lead_to(host):
            raise BadRequest(
                f"`{where}` leads to a host that this server does not send its model to.",
                param=where,
                hint=f"send the data itself as data:image/png;base64,...; the operator can name hosts in {SETTING}",
            )

    def _may_lead_to(self, host: str) -> bool:
        if self._is_closed:
            return False
        named = [each for each in self._hosts if each != ANY]
        if matches(host, named):
            return not is_address(host) or may_reach(host, private=True)
        return (not self._hosts or ANY in self._hosts) and is_public(host)


def _texts(parts: list[Any], where: str) -> Iterator[tuple[str, str, bool]]:
    """Yield each text of the parts but their words: where it stands, what it is, and whether its name says URL."""
    pending: list[tuple[str, Any, bool]] = [(where, parts, False)]
    while pending:
        where, value, is_url = pending.pop()
        if type(value) is str:
            yield where, value, is_url
        elif type(value) is list:
            pending += [(f"{where}[{at}]", each, is_url) for at, each in enumerate(value)]
        elif type(value) is dict:
            for name, each in value.items():
                if name not in _WORDS or type(each) is not str:
                    pending.append((_below(where, name), each, name.lower().endswith(_NAMES)))


def _below(where: str, name: str) -> str:
    """Return the name of a field; a caller's own names may hold anything, and are left out."""
    return f"{where}.{name}" if name.isascii() and name.isidentifier() and len(name) <= 32 else where
