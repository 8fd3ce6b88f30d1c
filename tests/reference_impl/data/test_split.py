import hashlib

import pytest

from reference_impl.data import SourceConfig, is_held_out, open_source

TEXTS = [f"document {index}" for index in range(2000)]


def test_the_hash_of_the_text_decides():
    assert hashlib.sha256(b"abc").hexdigest().startswith("ba7816bf")  # 0.728394 of the way from 0 to 1
    assert is_held_out("abc", 0.728395)
    assert not is_held_out("abc", 0.728394)


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_about_the_share_asked_for_is_held_out(share):
    # four standard deviations of 2,000 draws
    assert sum(is_held_out(text, share) for text in TEXTS) == pytest.approx(2000 * share, abs=4 * (500**0.5))


def test_a_larger_share_holds_out_the_same_documents_and_more():
    assert {text for text in TEXTS if is_held_out(text, 0.05)} < {text for text in TEXTS if is_held_out(text, 0.1)}
    assert not any(is_held_out(text, 0) for text in TEXTS)


def test_copies_of_a_text_are_on_one_side_whatever_their_name_and_source(tmp_path):
    sources = []
    for name, prefix in (("one", "a"), ("two", "b")):
        (tmp_path / name).mkdir()
        for index, text in enumerate(TEXTS[:40]):
            (tmp_path / name / f"{prefix}{index * 7 % 40}.txt").write_text(text)
        sources.append(open_source(SourceConfig("text", path=tmp_path / name)))
    sides = {side: [set(source.texts(side, 0.3)) for source in sources] for side in ("training", "held_out")}
    assert sides["training"][0] == sides["training"][1]
    assert sides["held_out"][0] == sides["held_out"][1] == set(TEXTS[:40]) - sides["training"][0]
    assert 0 < len(sides["held_out"][0]) < 40
