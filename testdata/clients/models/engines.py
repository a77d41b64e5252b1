"""transformers and sentence-transformers load by name and compute what they
compute from the files outside. Usage: engines.py WHAT"""
import sys

import sentence_transformers
import torch
import transformers
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer

from common import COMMITS, ROOT, ok

what = sys.argv[1]
name = "team/tiny-llama"


def logits(place, **options):
    tokenizer = AutoTokenizer.from_pretrained(place, **options)
    model = AutoModelForCausalLM.from_pretrained(place, **options)
    with torch.no_grad():
        return model(**tokenizer("nothing leaves this site", return_tensors="pt", return_token_type_ids=False)).logits


outside = logits(str(ROOT / "models" / name))
for options in ({}, {"revision": "v1.0"}, {"revision": COMMITS[name]}):
    assert torch.equal(logits(name, **options), outside), options
ok(f"transformers {transformers.__version__} {what}: a sharded model by name, tag and commit, the same logits")
words = ["a bundle crosses the gap", "a parcel goes over the bridge", "the cat sleeps"]
inside, before = SentenceTransformer("team/embedder"), SentenceTransformer(str(ROOT / "models/team/embedder"))
e = inside.encode(words)
assert (e == before.encode(words)).all()
near, far = float(e[0] @ e[1]), float(e[0] @ e[2])
assert near > far, (near, far)
ok(f"sentence-transformers {sentence_transformers.__version__} {what}: the same vectors; similar {near:.2f}, unlike {far:.2f}")
