"""`generate` as a command: a folder and a prompt in; text out, one line of what it cost, or one line for what can be mended."""

import io
import re
import sys

import pytest
import torch

from reference_impl.cli import main
from reference_impl.convert_command import ConvertOptions, convert_folder
from reference_impl.decoding import Sampling
from reference_impl.errors import CommandError, TextError
from reference_impl.generate_command import GenerateOptions, generate_command
from reference_impl.model_folder import load_folder
from reference_impl.visible_text import visible_lines
from tests.reference_impl.conftest import dense_model
from tests.reference_impl.folders import command_failure, write_dense

PROMPT = "It was a bright cold day in April"
SENTENCE = re.compile(
    r"33 prompt tokens, 24 new; prefill [\d,]+ tokens/s, keeps (?P<prefill>[\d.]+)% at routed layers; "
    r"decode [\d,.]+ tokens/s, keeps (?P<decode>[\d.]+)% at routed layers; "
    r"KV cache (?P<bytes>[\d,]+) bytes, dense 57,344\n"
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """dense, and mod, which keeps about half."""
    path = tmp_path_factory.mktemp("models")
    write_dense(path / "dense")
    convert_folder(ConvertOptions(path / "dense", path / "mod", settings={"router_bias": 0.0}))
    return path


def run(folder, out=None, stdin=b"", **options) -> tuple[str, str]:
    out, notes = out or io.StringIO(), io.StringIO()
    generate_command(GenerateOptions(folder, **options), out, notes, io.BytesIO(stdin))
    return out.getvalue(), notes.getvalue()


def expected(folder, num_new: int) -> str:
    model = load_folder(folder, "any")
    ids = torch.tensor(list(PROMPT.encode()))[None]
    tokens = model.generate(ids, max_new_tokens=num_new, do_sample=False)[0, ids.shape[1] :].tolist()
    return bytes(token for token in tokens if token < 256).decode(errors="replace")


def test_the_text_goes_to_stdout_and_the_cost_to_stderr(folders, monkeypatch, capsys):
    monkeypatch.chdir(folders)
    monkeypatch.setattr(sys, "argv", ["reference_impl", "generate", "mod", "--max-new-tokens", "24"])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(PROMPT.encode())))
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    printed = capsys.readouterr()
    assert printed.out == expected(folders / "mod", 24)
    cost = SENTENCE.fullmatch(printed.err)
    assert cost is not None, printed.err
    assert 0 < float(cost["prefill"]) < 100
    assert int(cost["bytes"].replace(",", "")) < 57_344


def test_a_prompt_comes_from_an_option_a_file_or_stdin(folders, tmp_path):
    (tmp_path / "prompt.txt").write_text(PROMPT)
    texts = {
        run(folders / "mod", prompt=PROMPT, max_new_tokens=8)[0],
        run(folders / "mod", prompt_file=tmp_path / "prompt.txt", max_new_tokens=8)[0],
        run(folders / "mod", stdin=PROMPT.encode(), max_new_tokens=8)[0],
    }
    assert texts == {expected(folders / "mod", 8)}


def test_a_dense_folder_generates_too(folders):
    text, cost = run(folders / "dense", prompt=PROMPT, max_new_tokens=24)
    assert text == expected(folders / "dense", 24)
    assert "keeps" not in cost
    assert cost.endswith("KV cache 57,344 bytes, dense 57,344\n")


def test_a_terminal_gets_no_control_character_and_a_pipe_gets_them_raw(tmp_path):
    model = dense_model(vocab_size=256)
    model.model.norm.weight.data.zero_()  # all logits are 0, so the first token is taken: NUL
    model.save_pretrained(tmp_path / "nul")
    assert run(tmp_path / "nul", prompt="a", max_new_tokens=2)[0] == "\x00\x00"
    assert run(tmp_path / "nul", out=Terminal(), prompt="a", max_new_tokens=2)[0] == "␀␀\n"


def test_lines_stay_lines_and_escape_sequences_are_shown():
    assert visible_lines("a \t\n\x1b[31m\r\x7f\u202eb é漢") == "a \t\n␛[31m␍␡\ufffdb é漢"


def test_new_tokens_default_to_what_fits(folders):
    _, cost = run(folders / "mod", prompt="a" * 250)
    assert "250 prompt tokens, 6 new;" in cost
    _, cost = run(folders / "mod", prompt="a" * 100)
    assert "100 prompt tokens, 128 new;" in cost


def test_the_same_seed_draws_the_same_text(folders):
    texts = [
        run(folders / "mod", prompt=PROMPT, max_new_tokens=24, sampling=Sampling(temperature=1.0, seed=seed))[0]
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_what_does_not_fit_the_model_is_refused(folders, tmp_path):
    with pytest.raises(TextError, match=r"has 300 tokens and .* 256 positions; expected at most 255: shorten it"):
        run(folders / "mod", prompt="a" * 300)
    with pytest.raises(TextError, match=r"has 256 tokens and .* 256 positions"):
        run(folders / "mod", prompt="a" * 256)
    with pytest.raises(CommandError, match="--max-new-tokens: got 7; expected 1 to 6: the prompt has 250 tokens"):
        run(folders / "mod", prompt="a" * 250, max_new_tokens=7)
    with pytest.raises(CommandError, match="--max-new-tokens: got 0; expected 1 to 255"):
        run(folders / "mod", prompt="a", max_new_tokens=0)
    dense_model().save_pretrained(tmp_path / "small")
    with pytest.raises(TextError, match="the text has token 240; the model's vocabulary has 211"):
        run(tmp_path / "small", prompt="a\U00010000")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", ""], "the prompt is empty"),
        (["--prompt", "a\udcff"], "byte 1 of the prompt is not UTF-8"),
        (["--prompt", "a", "--prompt-file", "prompt.txt"], "--prompt and --prompt-file: got both"),
        (["--prompt-file", "no.txt"], "no.txt: cannot be read: No such file"),
        (["--prompt-file", "latin.txt"], "byte 1 of the prompt is not UTF-8"),
        (["--prompt", "a", "--device", "cuda:99"], "--device: got 'cuda:99'; expected auto, cpu"),
        (["--prompt", "a", "--device", "tpu"], "--device: got 'tpu'; expected auto, cpu"),
        (["--prompt", "a", "--top-p", "0.5"], "--top-p: got 0.5 with greedy decoding"),
        (["--prompt", "a", "--dtype", "int4"], "--dtype: got 'int4'"),
    ],
)
def test_what_can_be_mended_is_one_line(folders, tmp_path, monkeypatch, capsys, arguments, message):
    (tmp_path / "latin.txt").write_bytes("né".encode("latin-1"))
    monkeypatch.chdir(tmp_path)
    assert message in command_failure(monkeypatch, capsys, "generate", folders / "mod", *arguments)


def test_a_folder_that_is_none_is_one_line(tmp_path, monkeypatch, capsys):
    error = command_failure(monkeypatch, capsys, "generate", tmp_path / "no", "--prompt", "a")
    assert "no config.json there; expected a folder that save_pretrained wrote" in error
