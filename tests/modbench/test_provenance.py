"""A guard outcome is void as soon as a file changes that decides what a method computes."""

import pytest

from modbench import provenance


@pytest.mark.parametrize("name", provenance.SOURCES)
def test_a_change_in_any_source_changes_the_digest(tmp_path, name):
    for source in provenance.SOURCES:
        assert (provenance.PROJECT / source).exists()
        path = tmp_path / source if source.endswith(".py") else tmp_path / source / "inside.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("before")
    before = provenance.source_digest.__wrapped__(tmp_path)
    assert provenance.source_digest.__wrapped__(tmp_path) == before
    changed = tmp_path / name if name.endswith(".py") else tmp_path / name / "inside.py"
    changed.write_text("after")
    assert provenance.source_digest.__wrapped__(tmp_path) != before
