import json
from pathlib import Path

import pytest
import yaml

from reference_impl.data import DataConfig, SourceConfig
from reference_impl.errors import DataError

ALL_KINDS = """
sequence_length: 64
held_out_share: 0.1
seed: 3
boundaries: ignore
shuffle_rows: 16
sources:
  - {kind: text, path: notes, suffixes: [.rst], weight: 2}
  - {kind: jsonl, path: web, field: content, skip_empty: true}
  - {kind: parquet, path: books.parquet}
  - {kind: datasets, dataset: someone/tales, subset: en, revision: abc}
  - {kind: stdlib, weight: 0}
  - {kind: docstrings}
  - {kind: repository, name: project}
"""


def test_the_default_needs_no_file_and_no_download():
    assert [source.kind for source in DataConfig().sources] == ["stdlib", "docstrings", "repository"]


def test_plain_data_of_every_kind_is_read_back_from_what_it_writes():
    config = DataConfig.from_dict(yaml.safe_load(ALL_KINDS))
    assert DataConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert DataConfig.from_dict({}) == DataConfig()


def test_settings_that_are_left_out_have_the_defaults_of_their_kind():
    text, jsonl, parquet, dataset, *_ = DataConfig.from_dict(yaml.safe_load(ALL_KINDS)).sources
    assert (text.weight, text.suffixes, text.skip_empty, text.field) == (2, (".rst",), False, None)
    assert (jsonl.field, jsonl.skip_empty, parquet.field, dataset.split) == ("content", True, "text", "train")


def test_a_source_is_called_by_its_path_data_set_or_kind():
    names = [source.name for source in DataConfig.from_dict(yaml.safe_load(ALL_KINDS)).sources]
    assert names == ["notes", "web", "books.parquet", "tales", "stdlib", "docstrings", "project"]


def test_relative_paths_start_at_the_given_folder(tmp_path):
    config = DataConfig.from_dict({"sources": [{"kind": "text", "path": "notes"}]}, folder=tmp_path)
    assert config.sources[0].path == str(tmp_path / "notes")
    assert config.sources[0].name == "notes"


BAD_SETTINGS = {
    "sources: got 0 sources": {"sources": []},
    "sources: got 'stdlib'": {"sources": "stdlib"},
    "no weight above 0": {"sources": [{"kind": "stdlib", "weight": 0}]},
    r"sources\[0\].weight: got -1; expected a finite number >= 0": {"sources": [{"kind": "stdlib", "weight": -1}]},
    r"sources\[0\].weight: got nan": {"sources": [{"kind": "stdlib", "weight": float("nan")}]},
    r"sources\[0\].weight: got '1'": {"sources": [{"kind": "stdlib", "weight": "1"}]},
    r"sources\[0\].kind: got 'txt'; expected one of text, jsonl": {"sources": [{"kind": "txt"}]},
    r"sources\[0\].kind: missing": {"sources": [{"weight": 1}]},
    r"sources\[0\].settings: got 'stdlib'; expected a mapping": {"sources": ["stdlib"]},
    r"sources\[0\].path: missing; kind text needs it": {"sources": [{"kind": "text"}]},
    r"sources\[0\].dataset: missing": {"sources": [{"kind": "datasets"}]},
    r"sources\[0\].path: got 3; expected a text": {"sources": [{"kind": "text", "path": 3}]},
    r"sources\[0\].path: got 'x'; kind stdlib takes no settings": {"sources": [{"kind": "stdlib", "path": "x"}]},
    r"sources\[0\].field: got 'x'; kind text takes path, suffixes": {
        "sources": [{"kind": "text", "path": "y", "field": "x"}]
    },
    r"sources\[0\].suffixes: got 'txt'": {"sources": [{"kind": "text", "path": "x", "suffixes": "txt"}]},
    r"sources\[0\].suffixes: got 'md'; expected a suffix with its dot": {
        "sources": [{"kind": "text", "path": "x", "suffixes": ["md"]}]
    },
    r"sources\[0\].skip_empty: got 1": {"sources": [{"kind": "text", "path": "x", "skip_empty": 1}]},
    r"sources\[0\].wieght: unknown setting": {"sources": [{"kind": "stdlib", "wieght": 1}]},
    r"sources\[1\].name: got 'stdlib' a second time": {"sources": [{"kind": "stdlib"}, {"kind": "stdlib"}]},
    "sequence_length: got 1; expected an integer >= 2": {"sequence_length": 1},
    "sequence_length: got True": {"sequence_length": True},
    "held_out_share: got 1; expected a number": {"held_out_share": 1},
    "held_out_share: got -0.1": {"held_out_share": -0.1},
    "seed: got 1.5": {"seed": 1.5},
    "boundaries: got 'cross'; expected one of respect, ignore": {"boundaries": "cross"},
    "shuffle_rows: got 0": {"shuffle_rows": 0},
    "lenght: unknown setting; expected some of sources, sequence_length": {"lenght": 4},
    "settings: got None; expected a mapping": None,
}


@pytest.mark.parametrize("text", BAD_SETTINGS)
def test_bad_settings_are_one_line_that_names_the_key(text):
    with pytest.raises(DataError, match=text) as caught:
        DataConfig.from_dict(BAD_SETTINGS[text])
    assert "\n" not in str(caught.value)


def test_sources_are_configurations_and_not_names():
    with pytest.raises(DataError, match="expected SourceConfig objects"):
        DataConfig(sources=("stdlib",))
    with pytest.raises(DataError, match="name: got 3"):
        SourceConfig("stdlib", name=3)


def test_the_example_of_the_documentation_is_a_configuration():
    page = (Path(__file__).parents[3] / "docs" / "training-data.md").read_text()
    config = DataConfig.from_dict(yaml.safe_load(page.split("```yaml\n")[1].split("```")[0]))
    assert [source.kind for source in config.sources] == ["stdlib", "text", "jsonl", "datasets"]
