"""The JSON Schema of scenario files: structure, and agreement with what is loaded."""

import json
from typing import Any

from modbench.scenario import SETTINGS, json_schema


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [found for item in value.values() for found in references(item)]
    return [found for item in value for found in references(item)] if isinstance(value, list) else []


def test_the_schema_is_json_with_no_dangling_reference() -> None:
    schema = json_schema()
    assert json.loads(json.dumps(schema)) == schema
    names = {reference.removeprefix("#/$defs/") for reference in references(schema)}
    assert names == set(schema["$defs"]), "every definition is used and every use is defined"


def test_known_methods_are_written_without_their_kind() -> None:
    schema = json_schema()
    methods = schema["properties"]["methods"]
    assert set(methods["properties"]) == set(SETTINGS)
    assert methods["required"] == ["dense"]
    for kind, model in SETTINGS.items():
        definition = schema["$defs"][model.__name__]
        assert "method" not in definition.get("required", []), f"{kind} needs no method: under its own name"
        assert definition["properties"]["method"]["const"] == kind


def test_methods_under_own_names_say_their_kind() -> None:
    options = json_schema()["properties"]["methods"]["additionalProperties"]["anyOf"]
    assert len(options) == len(SETTINGS)
    needs_no_method = [option["$ref"] for option in options if option.get("required") != ["method"]]
    assert needs_no_method == ["#/$defs/EntrySettings", "#/$defs/CommandSettings"], "their own key says it"


def test_only_methods_with_defaults_may_be_left_empty() -> None:
    methods = json_schema()["properties"]["methods"]["properties"]
    assert {"type": "null"} in methods["threshold"]["anyOf"]
    assert "anyOf" not in methods["entry"], "entry needs its entry"


def test_unknown_keys_are_refused_everywhere() -> None:
    schema = json_schema()
    assert schema["additionalProperties"] is False
    assert all(definition["additionalProperties"] is False for definition in schema["$defs"].values())


def test_required_sections_are_those_of_a_scenario() -> None:
    assert json_schema()["required"] == ["name", "model", "methods", "workload"]
