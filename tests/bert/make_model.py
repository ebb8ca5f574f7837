"""A random BERT of the layout of all-MiniLM-L6-v2 (2 layers, hidden 32, 4 heads, ff 64, vocab 105) for tests:
model.safetensors, config.json, tokenizer.json, 1_Pooling/config.json, and golden.json: ids and embeddings by a numpy
forward in float64 that shares no code with any Rust.

Usage: pip install numpy; python make_model.py   (writes golden.json beside itself, all else into tiny/; with `tokenizers` installed it also checks
the ids of golden.json against that library)
"""
import json, math, pathlib, struct, unicodedata
import numpy as np

here = pathlib.Path(__file__).parent / "tiny"
L, H, HEADS, FF, POS, EPS = 2, 32, 4, 64, 64, 1e-12

# vocabulary: specials, letters, digits, punctuation, whole words, continuations
vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
vocab += list("abcdefghijklmnopqrstuvwxyz") + list("0123456789") + list(".,!?'-") + ["中", "国"]
vocab += ["the", "weather", "is", "lovely", "today", "it", "so", "sunny", "out", "he", "drove", "to", "stadium", "cafe", "run", "un"]
vocab += ["##" + c for c in "abcdefghijklmnopqrstuvwxyz"] + ["##s", "##side", "##ning", "##able", "##ly", "##1", "##2", "##3", "##er", "##est", "##ing", "##ed", "##ful", "##ness", "##ment"]
vocab = list(dict.fromkeys(vocab))
V = len(vocab)
ids_of = {t: i for i, t in enumerate(vocab)}
PAD, UNK, CLS, SEP = (ids_of[t] for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]"))

rng = np.random.default_rng(20240607)
def w(*shape, scale=0.3): return rng.normal(0, scale, shape).astype(np.float32)
t = {
    "embeddings.word_embeddings.weight": w(V, H, scale=1.0),
    "embeddings.position_embeddings.weight": w(POS, H),
    "embeddings.token_type_embeddings.weight": w(2, H),
    "embeddings.LayerNorm.weight": 1 + w(H, scale=0.1), "embeddings.LayerNorm.bias": w(H, scale=0.1),
    "embeddings.position_ids": np.arange(POS, dtype=np.int64)[None],
    "pooler.dense.weight": w(H, H), "pooler.dense.bias": w(H),
}
for l in range(L):
    p = f"encoder.layer.{l}."
    for n in ("query", "key", "value"):
        t[p + f"attention.self.{n}.weight"], t[p + f"attention.self.{n}.bias"] = w(H, H), w(H, scale=0.1)
    t[p + "attention.output.dense.weight"], t[p + "attention.output.dense.bias"] = w(H, H), w(H, scale=0.1)
    t[p + "intermediate.dense.weight"], t[p + "intermediate.dense.bias"] = w(FF, H), w(FF, scale=0.1)
    t[p + "output.dense.weight"], t[p + "output.dense.bias"] = w(H, FF), w(H, scale=0.1)
    for n in ("attention.output.LayerNorm", "output.LayerNorm"):
        t[p + n + ".weight"], t[p + n + ".bias"] = 1 + w(H, scale=0.1), w(H, scale=0.1)

# safetensors by hand: u64 length, JSON head padded to 8, data in name order
head, off = {"__metadata__": {"format": "pt"}}, 0
for k in sorted(t):
    n = t[k].nbytes
    head[k] = {"dtype": {"float32": "F32", "int64": "I64"}[t[k].dtype.name], "shape": list(t[k].shape), "data_offsets": [off, off + n]}
    off += n
h = json.dumps(head, separators=(",", ":")).encode()
h += b" " * (-len(h) % 8)
(here / "model.safetensors").write_bytes(struct.pack("<Q", len(h)) + h + b"".join(t[k].tobytes() for k in sorted(t)))

(here / "config.json").write_text(json.dumps({
    "architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "hidden_size": H, "initializer_range": 0.02, "intermediate_size": FF, "layer_norm_eps": EPS,
    "max_position_embeddings": POS, "model_type": "bert", "num_attention_heads": HEADS, "num_hidden_layers": L,
    "pad_token_id": PAD, "position_embedding_type": "absolute", "type_vocab_size": 2, "use_cache": True, "vocab_size": V}, indent=1))
special = lambda i, c: {"id": i, "special": True, "content": c, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
(here / "tokenizer.json").write_text(json.dumps({
    "version": "1.0",
    "truncation": {"max_length": 16, "strategy": "LongestFirst", "stride": 0},
    "padding": {"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": PAD, "pad_type_id": 0, "pad_token": "[PAD]"},
    "added_tokens": [special(ids_of[c], c) for c in vocab[:5]],
    "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
        "pair": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [CLS], "tokens": ["[CLS]"]}, "[SEP]": {"id": "[SEP]", "ids": [SEP], "tokens": ["[SEP]"]}}},
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": ids_of}}, ensure_ascii=False))
(here / "1_Pooling").mkdir(exist_ok=True)
(here / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": H, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False}))


def words(text):
    """BertNormalizer (clean, CJK, lower case, strip accents) and BertPreTokenizer, in short."""
    text = "".join(" " if c.isspace() else c for c in text if c in "\t\n\r" or (c not in "\0\ufffd" and unicodedata.category(c)[0] != "C"))
    text = "".join(f" {c} " if 0x4E00 <= ord(c) <= 0x9FFF else c for c in text)
    text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn").lower()
    out = []
    for word in text.split():
        cur = ""
        for c in word:
            if (c.isascii() and not c.isalnum()) or unicodedata.category(c)[0] == "P":
                out += [cur, c] if cur else [c]
                cur = ""
            else:
                cur += c
        out += [cur] if cur else []
    return out


def encode(text):
    ids = [CLS]
    for word in words(text):
        sub, at = [], 0
        while at < len(word) and len(word) <= 100:
            for end in range(len(word), at, -1):
                piece = ("##" if at else "") + word[at:end]
                if piece in ids_of:
                    break
            else:
                sub = [UNK]
                break
            sub.append(ids_of[piece])
            at = end
        ids += sub if len(word) <= 100 else [UNK]
    return ids + [SEP]


W = {k: v.astype(np.float64) for k, v in t.items()}
erf = np.vectorize(math.erf)
def ln(x, p): return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + EPS) * W[p + ".weight"] + W[p + ".bias"]
def lin(x, p): return x @ W[p + ".weight"].T + W[p + ".bias"]


def forward(ids):
    n = len(ids)
    x = ln(W["embeddings.word_embeddings.weight"][ids] + W["embeddings.position_embeddings.weight"][:n] + W["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for l in range(L):
        p = f"encoder.layer.{l}."
        q, k, v = (lin(x, p + f"attention.self.{s}").reshape(n, HEADS, -1).transpose(1, 0, 2) for s in ("query", "key", "value"))
        s = q @ k.transpose(0, 2, 1) / math.sqrt(H // HEADS)
        s = np.exp(s - s.max(-1, keepdims=True))
        c = (s / s.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(n, H)
        x = ln(x + lin(c, p + "attention.output.dense"), p + "attention.output.LayerNorm")
        y = lin(x, p + "intermediate.dense")
        x = ln(x + lin(0.5 * y * (1 + erf(y / math.sqrt(2))), p + "output.dense"), p + "output.LayerNorm")
    m = x.mean(0)
    return x, m / np.linalg.norm(m)


texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.", "Café CAFÉ unrunnable 123", "", "中国 zzz ☃ running-est", "a b c d e f g h i j k l m n o p q r s t"]
golden = []
for text in texts:
    ids = encode(text)
    x, e = forward(ids)
    golden.append({"text": text, "ids": ids, "embedding": e.tolist(), "first_token": x[0].tolist()})
(here.parent / "golden.json").write_text(json.dumps(golden, ensure_ascii=False))
try:
    from tokenizers import Tokenizer
    tk = Tokenizer.from_file(str(here / "tokenizer.json")); tk.no_padding(); tk.no_truncation()
    for g in golden: assert tk.encode(g["text"]).ids == g["ids"], (g["text"], tk.encode(g["text"]).ids, g["ids"])
    print("ids agree with tokenizers")
except ImportError:
    print("tokenizers is not installed: ids unchecked")
print("vocab", V, sum(f.stat().st_size for f in here.rglob("*") if f.is_file()), "bytes in all")
