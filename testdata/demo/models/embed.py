"""Downloads an ONNX model and its tokenizer by name, and compares sentences."""
import sys

import numpy
import onnxruntime
from huggingface_hub import snapshot_download
from tokenizers import Tokenizer

folder = snapshot_download(sys.argv[1])
session = onnxruntime.InferenceSession(f"{folder}/onnx/model_int8.onnx")
tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
tokenizer.no_padding()


def embed(text):
    t = tokenizer.encode(text)
    ids = {"input_ids": t.ids, "attention_mask": t.attention_mask, "token_type_ids": t.type_ids}
    (tokens,), = session.run(["last_hidden_state"], {k: numpy.array([v], dtype=numpy.int64) for k, v in ids.items()})
    mean = tokens.mean(axis=0)
    return mean / numpy.linalg.norm(mean)


question, *answers = sys.argv[2:]
near = [float(embed(question) @ embed(a)) for a in answers]
for a, n in zip(answers, near):
    print(f"{n:.3f}  {question}  /  {a}")
if near != sorted(near, reverse=True):
    sys.exit("the sentences that are alike are not near each other")
