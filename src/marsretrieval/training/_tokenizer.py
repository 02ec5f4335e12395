"""A small byte-level BPE tokenizer, learned from the captions that it will read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_PAD, _START, _END = "<pad>", "<start>", "<end>"  # ids 0, 1, 2


def save_tokenizer(texts: Iterable[str], vocabulary: int, folder: Path, length: int) -> int:
    """Learn the tokenizer, save it for transformers' AutoTokenizer; returns its size.

    Byte level: any text can be read, unknown words as letters.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_PAD, _START, _END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A {_END}", special_tokens=[(_START, 1), (_END, 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        bos_token=_START,
        eos_token=_END,
        model_max_length=length,
    )
    fast.save_pretrained(folder)
    return len(fast)
