"""The description of the HTTP API, and the checker that holds every answer of these tests to it."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from tests.http.node import JSON, KEYED, Answer, Node, node
from tests.http.schema import faults, resolve
from tidegate.config import load as config
from tidegate.core import errors
from tidegate.core.errors import Refused
from tidegate.http import api, operations


def test_every_function_of_the_api_is_in_the_table_and_takes_the_names_of_its_path() -> None:
    table = {(method, path): operation.run for (method, path), operation in operations.OPERATIONS.items()}
    public = {run for name, run in vars(api).items() if inspect.iscoroutinefunction(run) and not name.startswith("_")}
    assert public == {run for run in table.values() if run.__module__ == api.__name__}
    for (method, path), run in table.items():
        assert list(inspect.signature(run).parameters) == ["handler", *re.findall(r"{(\w+)}", path)], (method, path)


async def test_the_description_is_served_and_its_parts_exist() -> None:
    async with node(**KEYED) as n:
        document = (await n.call("GET", "/api/openapi.json")).json
    assert document == operations.document(n.app.config)
    codes = {
        error.code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, Refused) and error is not Refused
    }

    def walk(part: Any) -> None:
        match part:
            case dict():
                if "$ref" in part:
                    resolve(part["$ref"], document)
                if part.get("properties", {}).get("code", {}).get("enum"):
                    assert codes.issuperset(part["properties"]["code"]["enum"])
                for value in part.values():
                    walk(value)
            case list():
                for value in part:
                    walk(value)

    walk(document)
    assert document["openapi"].startswith("3.1")
    push = document["paths"]["/api/clients/{client}/push"]["post"]
    assert [parameter["name"] for parameter in push["parameters"]] == ["client", "Idempotency-Key"]
    assert push["security"] == [{"key": []}]


def test_the_description_takes_the_bodies_that_the_api_takes() -> None:
    document = operations.document(config.load(None, {}))
    item = {"$ref": "#/components/schemas/Pushes"}
    assert faults({"pushes": [{"client": "a", "data": 1}, {"all": True, "data": {}, "key": "k"}]}, item, document) == []
    assert faults({"pushes": [{"client": "a", "group": "b", "data": 1}]}, item, document)
    assert faults({"pushes": [{"client": "a/b", "data": 1}]}, item, document)
    assert faults({"pushes": [{"client": "a", "data": 1, "conflate": "b"}]}, item, document) == []
    assert faults({"pushes": [{"client": "a", "data": 1, "conflate": "b c"}]}, item, document)
    assert faults({"data": 1, "conflate": "b"}, {"$ref": "#/components/schemas/Push"}, document) == []
    assert faults({"pushes": [{"client": "a"}]}, item, document)
    assert faults({"more": 1, "data": 1}, {"$ref": "#/components/schemas/Push"}, document)


def test_the_checker_of_answers_finds_faults() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"]}
    assert faults({"n": 1}, schema, {}) == []
    wrong: list[Any] = [{}, {"n": 0}, {"n": True}, {"n": "1"}, []]
    for value in wrong:
        assert faults(value, schema, {})


def test_the_node_of_these_tests_refuses_an_answer_that_is_not_described() -> None:
    checked = Node.__new__(Node)
    checked.document = operations.document(config.load(None, {}))
    checked.check("GET", "/healthz", Answer(200, {"content-type": JSON}, b'{"status":"alive"}'))
    for status, body in ((200, b'{"status":"dead"}'), (201, b'{"status":"alive"}')):
        with pytest.raises(AssertionError):
            checked.check("GET", "/healthz", Answer(status, {"content-type": JSON}, body))
