"""Makes the repositories of the matrix below a folder: a language model with
random weights in several shards, an embedding model that a package carries,
and a dataset. Usage: make.py FOLDER EMBEDDER"""
import csv
import pathlib
import shutil
import sys

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

root, embedder = map(pathlib.Path, sys.argv[1:])
shutil.copytree(embedder, root / "models/team/embedder", dirs_exist_ok=True)

llama = root / "models/team/tiny-llama"
torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained(root / "models/team/embedder")
model = LlamaForCausalLM(LlamaConfig(
    vocab_size=tokenizer.vocab_size, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, pad_token_id=0))
model.save_pretrained(llama, max_shard_size="4MB")
tokenizer.save_pretrained(llama)
(llama / "README.md").write_text("---\nlicense: apache-2.0\nbase_model: team/embedder\n---\nRandom weights.\n")
sub = llama / "a folder"
sub.mkdir()
(sub / "notes+more.txt").write_text("a name with a space and a plus\n")

data = root / "datasets/team/questions"
(data / "data").mkdir(parents=True)
(data / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
with open(data / "data/train.csv", "w", newline="") as f:
    rows = csv.writer(f)
    rows.writerow(["question", "answer"])
    rows.writerows([f"How much is {i} + {i}?", 2 * i] for i in range(2000))
