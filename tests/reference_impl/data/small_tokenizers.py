"""Tokenizers of a few tokens, as real models have them."""

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from reference_impl.data.tokenizer_files import END_OF_DOCUMENT, _byte_character

E_ACUTE = "é".encode()  # C3 A9
KANJI = "漢".encode()  # E6 BC A2


def characters(data):
    return "".join(map(_byte_character, data))


def byte_level(merges=(), **pre_tokenizer):
    """Bytes, and a token per merge: pairs of byte strings."""
    vocabulary = {_byte_character(value): value for value in range(256)}
    pairs = [(characters(left), characters(right)) for left, right in merges]
    for left, right in pairs:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(**{"add_prefix_space": False, **pre_tokenizer})
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END_OF_DOCUMENT, special=True)])
    return tokenizer


def with_partial_characters():
    """`the`, ` the`, the first two bytes of 漢, and an é that takes the space before it."""
    return byte_level(
        [(b"h", b"e"), (b"t", b"he"), (b" ", b"the"), (KANJI[:1], KANJI[1:2]), E_ACUTE_PAIR, (b" ", E_ACUTE)],
    )


E_ACUTE_PAIR = (E_ACUTE[:1], E_ACUTE[1:])


def byte_fallback():
    """As Llama 2: spaces are U+2581, one is put before every text, bytes stand in for other characters, `<s>` starts a text."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256)), "▁", "a", "é", "▁a"]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=[("▁", "a")], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in ("<s>", "</s>")])
    return tokenizer


def lossy():
    """Words, and an unknown one for all others."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1, END_OF_DOCUMENT: 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer
