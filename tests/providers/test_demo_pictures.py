"""What the demo model sees of a picture: the headers of each format, and URLs whole and broken."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest

from firstword.providers.demo.pictures import Picture, pictures

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 321, 123)
HEADERS = {
    "png": PNG,
    "gif": b"GIF89a" + struct.pack("<HH", 321, 123),
    "jpeg": b"\xff\xd8\xff\xe1\x00\x06abcd\xff\xff\xc2\x00\x11\x08" + struct.pack(">HH", 123, 321),
    "webp, lossy": b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\x30\x01\x00\x9d\x01\x2a" + struct.pack("<HH", 321, 123),
    "webp, lossless": b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + struct.pack("<I", 320 | 122 << 14),
    "webp, extended": b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0" + struct.pack("<HBHB", 320, 0, 122, 0),
}


def see(url: Any) -> Picture | None:
    """Return what is seen of the one picture of a message."""
    ((picture,), _) = pictures([{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": url}}])
    return picture


def data_url(content: bytes) -> str:
    return f"data:image/x;base64,{base64.b64encode(content).decode()}"


@pytest.mark.parametrize("name", HEADERS)
def test_the_size_in_pixels_is_read_from_the_header(name: str) -> None:
    """Width 321 and height 123, in the way of each format."""
    assert see(data_url(HEADERS[name])) == Picture("image/x", len(HEADERS[name]), (321, 123))


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_is_cut_off_still_tells_type_and_bytes(name: str) -> None:
    """The picture ends before its size, at every byte."""
    header = HEADERS[name]

    assert [see(data_url(header[:end])) for end in range(1, len(header))] == [
        Picture("image/x", end) for end in range(1, len(header))
    ]


@pytest.mark.parametrize("length", range(24, 28))
def test_the_size_in_bytes_is_right_however_the_text_is_written(length: int) -> None:
    """With padding and without, in the URL-safe alphabet, and in lines as mail programs write it."""
    content = PNG.ljust(length, b"\xfe")
    ways = [
        base64.b64encode(content).decode(),
        base64.b64encode(content).decode().rstrip("="),
        base64.urlsafe_b64encode(content).decode(),
        base64.encodebytes(content).decode(),
    ]

    assert {see(f"DATA:Image/PNG;name=a;base64,{text}") for text in ways} == {Picture("image/png", length, (321, 123))}


def test_megabytes_are_measured_in_full() -> None:
    """Four megabytes in lines, of which only the beginning is decoded."""
    content = PNG + bytes(4_000_000)

    assert see("data:image/png;base64," + base64.encodebytes(content).decode()) == Picture(
        "image/png", len(content), (321, 123)
    )


def test_a_picture_may_be_written_out_in_the_url() -> None:
    """An SVG with three of its characters escaped."""
    assert see("data:image/svg+xml,%3Csvg%2F%3E") == Picture("image/svg+xml", 6)


@pytest.mark.parametrize(
    "url",
    [
        *("", "x", "data:", "data:image/png", "data:image/png,", "data:image/png;base64,", "data:;base64,AAAA"),
        *("data:image/png;base64,@@@@", "data:image/png;base64,AAAAA", "data:image/png;base64,é", "data:a b/c,x"),
        *("http://[", "http://", "https://a b/", "/only/a/path", None, 3, {}, ["https://example.com"]),
    ],
)
def test_what_cannot_be_read_is_none(url: Any) -> None:
    """The URL is broken, empty, or no text."""
    assert see(url) is None


def test_of_a_picture_elsewhere_only_the_host_is_seen() -> None:
    """The URL has a password, a path and a query; once in the shape that is not OpenAI's."""
    url = "https://ann:secret@Pictures.example.com:8443/a.png?key=k"

    assert see(url) == Picture(host="pictures.example.com")
    assert pictures([{"type": "image", "image_url": url}]) == ([Picture(host="pictures.example.com")], 1)


@pytest.mark.parametrize(
    "content", [None, "words", {}, [None, 3, "image_url", {"type": ["image_url"]}, {"type": "text"}]]
)
def test_a_message_without_pictures_has_none(content: Any) -> None:
    """The content is text, nothing, or odd."""
    assert pictures(content) == ([], 0)
