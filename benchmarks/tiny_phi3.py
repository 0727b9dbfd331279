"""A tiny randomly initialised Phi-3, with a tokenizer trained on the spot.

    python benchmarks/tiny_phi3.py DIRECTORY

Runs in the environment that `benchmarks.third_party` makes (transformers, torch), never in the
project's own. It answers nonsense, quickly, in the shape of the real model.
"""

import sys
from pathlib import Path

import torch  # type: ignore[import-not-found, unused-ignore]
from tokenizers import (  # type: ignore[import-not-found, unused-ignore]
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    trainers,
)
from transformers import (  # type: ignore[import-not-found, unused-ignore]
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedTokenizerFast,
)

VOCABULARY = 1024
SPECIAL = ["<unk>", "<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE over this very file: any text at hand will do."""
    pieces = Tokenizer(models.BPE(unk_token="<unk>"))
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces.train_from_iterator(Path(__file__).read_text("utf-8").splitlines(), trainer)
    whole = PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )
    whole.chat_template = CHAT_TEMPLATE
    return whole


def main() -> None:
    directory = Path(sys.argv[1])
    torch.manual_seed(0)
    words = tokenizer()
    config = Phi3Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        original_max_position_embeddings=2048,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    Phi3ForCausalLM(config).save_pretrained(directory)
    words.save_pretrained(directory)


if __name__ == "__main__":
    main()
