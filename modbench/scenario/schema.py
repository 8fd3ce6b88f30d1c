"""JSON Schema of the scenario file, for editors (`modbench schema`)."""

from typing import Any

from modbench.scenario.labels import KINDS_BY_KEY, LABEL
from modbench.scenario.models import BASELINE, SETTINGS, Scenario, runs_foreign_code
from modbench.scenario.search import SEARCHABLE, SearchSettings


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a scenario as users write it: a method's kind is its key, or is named inside."""
    schema = Scenario.model_json_schema()
    definitions = schema["$defs"]
    references = {kind: {"$ref": f"#/$defs/{model.__name__}"} for kind, model in SETTINGS.items()}
    properties: dict[str, Any] = {
        kind: reference
        if definitions[SETTINGS[kind].__name__].get("required")
        else {"anyOf": [reference, {"type": "null"}]}
        for kind, reference in references.items()
    }
    properties[BASELINE]["anyOf"] += [reference for kind, reference in references.items() if runs_foreign_code(kind)]
    labelled = [
        reference if kind in KINDS_BY_KEY else {"allOf": [reference], "required": ["method"]}
        for kind, reference in references.items()
    ]
    schema["properties"]["methods"] = {
        "title": "Methods",
        "type": "object",
        "description": "a known name, or a name of your own with method:, entry: or command: inside",
        "properties": properties,
        "propertyNames": {"pattern": f"^{LABEL.pattern}$"},
        "additionalProperties": {"anyOf": labelled},
        "required": [BASELINE],
    }
    definitions[SearchSettings.__name__] = SearchSettings.model_json_schema()
    workload = definitions["Workload"]["properties"]
    for name in (axis.rpartition(".")[2] for axis in SEARCHABLE):
        size = workload[name]
        number = {key: size.pop(key) for key in ("type", "exclusiveMinimum")}
        size["anyOf"] = [number, {"$ref": f"#/$defs/{SearchSettings.__name__}"}]
    schema["properties"]["matrix"]["additionalProperties"] |= {"minItems": 1, "uniqueItems": True}
    schema["properties"]["matrix"]["propertyNames"] = {"pattern": r"^(model|methods|workload|measure)\."}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
