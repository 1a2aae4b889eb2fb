"""Operations of an OpenAPI document as tools, against a real API; and the documents that are none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_of_a_test import Api, Serve, some_turn
from openapi_spec_validator import validate

from firstword import ConfigError, plugins
from firstword.errors import ToolError
from firstword.tools._fits import misfits
from firstword.tools.http import HTTPTool
from firstword.tools.openapi import openapi

PETSTORE = Path(__file__).parent / "petstore.yaml"
SECRET = "canary-4f2a9c1d"


@pytest.fixture
def api(serve: Serve) -> Api:
    return Api(serve)


def text() -> str:
    """The document as YAML 1.1 reads it too."""
    return PETSTORE.read_text().replace("[yes, no, 2020-01-01]", '["yes", "no", "2020-01-01"]')


@pytest.fixture
def document() -> dict[str, Any]:
    """The document as a dict, for a test to spoil."""
    found: dict[str, Any] = yaml.safe_load(text())
    return found


def only(tools: list[HTTPTool]) -> HTTPTool:
    [tool] = tools
    return tool


def test_the_document_is_a_real_one() -> None:
    """The tests would prove little on a document that no other program reads."""
    validate(yaml.safe_load(text()))


async def test_chosen_operations_are_tools_that_call_the_api(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three operations with parameters of every kind, and a key that the operator sends along."""
    monkeypatch.setenv("PETS_KEY", SECRET)
    tools = openapi(
        PETSTORE,
        operations=["getPet", "findPets", "addPet"],
        base_url=f"{api.url}/v1/",
        headers={"Authorization": "Bearer ${PETS_KEY}"},
        private=True,
        prefix="pets_",
        timeout=5,
    )
    get, find, add = tools
    assert [tool.name for tool in tools] == ["pets_getPet", "pets_findPets", "pets_addPet"]
    assert [tool.commits for tool in tools] == [False, False, True]
    assert get.outside is find.outside is add.outside

    await get.call({"petId": 7, "fields": ["a", "b c"], "X-Trace": "t1"}, some_turn())
    await find.call({"status": "no", "page_size": 2}, some_turn())
    await add.call({"body": {"name": "Rex", "tag": {"label": "dog"}}}, some_turn())
    await get.close()

    assert [(asked.method, asked.target) for asked in api.asked] == [
        ("GET", "/v1/pets/7?fields=a&fields=b%20c"),
        ("GET", "/v1/pets?status=no&page%5Bsize%5D=2"),
        ("POST", "/v1/pets"),
    ]
    assert api.asked[0].headers["x-trace"] == "t1"
    assert {asked.headers["authorization"] for asked in api.asked} == {f"Bearer {SECRET}"}
    assert api.asked[2].json == {"name": "Rex", "tag": {"label": "dog"}}
    assert SECRET not in json.dumps([tool.parameters for tool in tools])


def test_schemas_are_written_out_in_plain_json_schema() -> None:
    """References, `nullable`, `readOnly`, a schema that holds itself, and YAML's own ideas of yes and of dates."""
    add = only(openapi(f"{PETSTORE}#addPet"))
    find = only(openapi(f"{PETSTORE}#findPets"))
    get = only(openapi(f"{PETSTORE}# getPet ,"))

    pet = {
        "name": {"type": "string"},
        "nick": {"type": ["string", "null"]},
        "tag": {"type": "object", "properties": {"label": {"type": "string"}}, "additionalProperties": False},
        "mother": {"type": "object"},
    }
    assert add.parameters["properties"]["body"] == {"type": "object", "properties": pet, "required": ["name"]}
    assert (add.parameters["required"], add.description) == (["body"], "POST /pets")
    assert find.parameters["properties"] == {
        "status": {"type": "string", "enum": ["yes", "no", "2020-01-01"]},
        "page_size": {"type": "integer", "exclusiveMinimum": 0},
    }
    assert (find.parameters["required"], find.description) == (["status"], "Look for pets.")
    assert list(get.parameters["properties"]) == ["fields", "X-Trace", "petId"]
    assert get.parameters["properties"]["X-Trace"]["description"] == "A word for the log."


async def test_arguments_are_held_against_the_documents_schemas(api: Api) -> None:
    """A model makes up a body."""
    add = only(openapi(PETSTORE, operations=["addPet"], base_url=api.url, private=True))
    for body, message in (
        ({}, "'body.name' is missing"),
        ({"name": 1}, "'body.name' must be of the type string"),
        ({"name": "x", "tag": {"more": 1}}, "There is no argument 'body.tag.more'"),
    ):
        with pytest.raises(ToolError, match=message):
            await add.call({"body": body}, some_turn())
    assert api.asked == []


def test_nothing_is_a_tool_that_was_not_chosen() -> None:
    """An API has hundreds of operations, some of which delete; the operator is shown the list."""
    for source in (str(PETSTORE), f"{PETSTORE}#", f"{PETSTORE}# , "):
        with pytest.raises(ConfigError, match="No operation of the OpenAPI document was chosen") as caught:
            openapi(source)
        names = "getPet, delete /pets/{petId}, findPets, addPet, getPhoto, addPhoto"
        assert caught.value.hint == f"there are: {names}"
    with pytest.raises(ConfigError, match="has no operation 'getPat'") as caught:
        openapi(f"{PETSTORE}#getPat")
    assert caught.value.hint is not None and "getPet" in caught.value.hint


def test_an_operation_without_an_id_is_named_by_its_place() -> None:
    """Many documents have none."""
    tool = only(openapi(PETSTORE, operations=["delete /pets/{petId}"]))
    assert (tool.name, tool.commits, tool.description) == ("delete_pets_petId", True, "DELETE /pets/{petId}")


def test_the_kind_is_found_by_its_name() -> None:
    """`app.add_tools("openapi:petstore.yaml#getPet")` asks for it so."""
    assert [tool.name for tool in plugins.load("tools", "openapi")(f"{PETSTORE}#getPet,findPets")] == [
        "getPet",
        "findPets",
    ]


def test_a_json_document_needs_no_library(tmp_path: Path, document: dict[str, Any]) -> None:
    """The same document as JSON."""
    (tmp_path / "pets.json").write_text(json.dumps(document))
    assert only(openapi(f"{tmp_path / 'pets.json'}#addPet")).name == "addPet"


def test_yaml_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """firstword was installed without the extra."""
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    with pytest.raises(ConfigError, match="needs PyYAML") as caught:
        openapi(f"{PETSTORE}#getPet")
    assert caught.value.hint == 'pip install "firstword[openapi]"'


async def test_words_of_the_document_are_never_templates(
    api: Api, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A document from somewhere tries to have a secret of the environment sent to its server."""
    monkeypatch.setenv("HOME_KEY", SECRET)
    get = document["paths"]["/pets"]["get"]
    get["parameters"] = [
        {"name": "${HOME_KEY}", "in": "query", "schema": {"type": "string", "default": "${HOME_KEY}"}},
        {"name": "HOME_KEY", "in": "query", "schema": {"type": "string"}},
    ]
    get["description"] = "${HOME_KEY} {status}"
    tool = only(openapi(document, operations=["findPets"], base_url=api.url, private=True))
    await tool.call({"HOME_KEY": "${HOME_KEY}", "HOME_KEY_query": "x"}, some_turn())
    await tool.close()
    assert SECRET not in repr(api.asked) and tool.description == "${HOME_KEY} {status}"

    secret = {"name": "HOME_KEY", "in": "path", "required": True, "schema": {"type": "string"}}
    for path in ("/x/${HOME_KEY}", "/x?key=${HOME_KEY}", "/x#${HOME_KEY}", "/x?key={HOME_KEY}"):
        document["paths"] = {path: {"get": {"operationId": "leak", "parameters": [secret]}}}
        with pytest.raises(ConfigError, match="more than a path"):
            openapi(document, operations=["leak"])
    document["paths"] = {"/{HOME_KEY}": {"get": {"operationId": "leak", "parameters": [secret]}}}
    for server in ("https://evil.example/?k=${HOME_KEY}", "https://${HOME_KEY}.evil.example", "https://x.example/${A}"):
        document["servers"] = [{"url": server}]
        with pytest.raises(ConfigError):
            openapi(document, operations=["leak"])


def bomb() -> str:
    """Eight schemas, each of which holds the next one ten times."""
    schemas = "".join(
        f"    S{number}: {{type: object, properties: {{"
        + ", ".join(f'p{n}: {{$ref: "#/components/schemas/S{number + 1}"}}' for n in range(10))
        + "}}\n"
        for number in range(8)
    )
    return f"components:\n  schemas:\n{schemas}    S8: {{type: string}}\n"


BODY = """paths:
  /x:
    post:
      operationId: op
      requestBody: {content: {application/json: {schema: SCHEMA}}}
servers: [{url: "https://x.example"}]
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "says no version"),
        ("[1]", "is no object"),
        ("a: [", r"is no YAML \(line"),
        ("a: !!python/object/apply:os.system [id]", "is no YAML"),
        ("\x00", "is no YAML"),
        ("openapi: 2.0.0", "says the version '2.0.0'"),
        ('swagger: "2.0"', "says Swagger 2.0"),
        ("openapi: 3.0.0\npaths: [1]", "paths is no object"),
        ("openapi: 3.0.0\npaths: {/x: 5}", "paths./x is no object"),
        ("openapi: 3.0.0\npaths: {/x: {$ref: other.yaml#/x}}", "is not within it"),
        ("openapi: 3.0.0\npaths: {/x: {$ref: https://evil.example/x}}", "is not within it"),
        ('openapi: 3.0.0\npaths: {/x: {$ref: "#/paths/~1x"}}', "references without end"),
        ('openapi: 3.0.0\npaths: {/x: {$ref: "#/nowhere"}}', "which it has not"),
        ("openapi: 3.0.0\npaths: {/x: {get: {operationId: op}, put: {operationId: op}}}", "two operations 'op'"),
        ("openapi: 3.0.0\npaths: {/x: {get: {operationId: op}}}", "names no server"),
        ("openapi: 3.0.0\nservers: [{url: /v1}]\npaths: {/x: {get: {operationId: op}}}", "is no whole URL"),
        ("openapi: 3.0.0\nservers: [{url: /v1}]\npaths: {/x: {get: {operationId: op}}}", "is no whole URL"),
        (
            'openapi: 3.0.0\nservers: [{url: "https://x.example"}]\npaths: {"/{x}": {get: {operationId: op}}}',
            "has no parameter for the {x}",
        ),
        (
            'openapi: 3.0.0\nservers: [{url: "http://x.example"}]\npaths: {/x: {get: {operationId: op}}}',
            "without encryption",
        ),
        (
            'openapi: 3.0.0\nservers: [{url: "https://10.0.0.1"}]\npaths: {/x: {get: {operationId: op}}}',
            "not one that tools may reach",
        ),
        ("openapi: 3.0.0\npaths: {/x: {get: {operationId: op, parameters: 5}}}", "parameters that are no list"),
        ("openapi: 3.0.0\npaths: {/x: {get: {operationId: op, parameters: [5]}}}", "a parameter without a name"),
        ("openapi: 3.1.0\n" + BODY.replace("SCHEMA", "5"), "is no object"),
        ("openapi: 3.1.0\n" + BODY.replace("SCHEMA", "&a {type: object, properties: {a: *a}}"), "too large"),
        ("openapi: 3.1.0\n" + BODY.replace("SCHEMA", "{default: &a [*a]}"), "is no JSON"),
        ("openapi: 3.1.0\n" + BODY.replace("SCHEMA", '{$ref: "#/components/schemas/S0"}') + bomb(), "too large"),
    ],
)
def test_a_bad_document_is_told_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    """A file that is none, one of another version, one that fetches, one that explodes."""
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        openapi(tmp_path / "bad.yaml", operations=["op"])
    assert "\n" not in caught.value.message and str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ("addPhoto", "takes a body that is no JSON"),
        ("getPhoto", "'petId', which is of a kind that is not supported"),
    ],
)
def test_an_operation_that_cannot_be_called_is_refused(operation: str, message: str) -> None:
    """A picture as a body, and a path in a style that hardly anybody writes."""
    with pytest.raises(ConfigError, match=message):
        openapi(PETSTORE, operations=[operation])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://pets.example/openapi.yaml#getPet", "is a file, not a URL"),
        ("nowhere.yaml#getPet", "cannot be read: no such file"),
        (".#getPet", "cannot be read: is a directory"),
    ],
)
def test_a_document_that_is_no_file_is_refused(source: str, message: str) -> None:
    """A URL would be fetched from wherever it leads; a path may be mistyped."""
    with pytest.raises(ConfigError, match=message):
        openapi(source)


def test_a_document_that_says_json_and_is_none_is_refused(tmp_path: Path) -> None:
    """YAML in a file that ends in .json, and half a file."""
    for text in ("openapi: 3.0.0", '{"openapi": ', "[" * 100_000):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ConfigError, match="is no JSON"):
            openapi(tmp_path / "bad.json", operations=["op"])


@pytest.mark.parametrize("names", [["getPet", "getPet"], "getPet"])
def test_a_list_of_operations_is_a_list_of_different_ones(names: Any) -> None:
    """One is named twice, or the list is a text."""
    with pytest.raises(ConfigError, match=r"would be the tool 'getPet'|No operation"):
        openapi(PETSTORE, operations=names)


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every (container, key) of a document."""
    for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield node, key
        yield from places(node[key])


async def test_a_document_with_any_one_thing_wrong_is_used_or_refused(document: dict[str, Any]) -> None:
    """Each value in turn is replaced by one of each other kind: a tool or a sentence, and never a traceback."""
    names = ["getPet", "findPets", "addPet"]
    used = refused = 0
    for container, key in list(places(document)):
        whole = container[key]
        for wrong in (None, 5, "x", "#/paths", [], [5], {}, {"$ref": 5}, True):
            container[key] = wrong
            try:
                tools = openapi(document, operations=names)
                for tool in tools:
                    for arguments in ({}, {"petId": "x", "body": [{}], "status": 5}):
                        list(misfits(arguments, tool.parameters))
                used += 1
            except ConfigError:
                refused += 1
        container[key] = whole
    assert used > 500 and refused > 500
