"""Downloads a GGUF file by name and lets llama.cpp go on with a sentence."""
import sys

import xllamacpp
from huggingface_hub import hf_hub_download, list_repo_files

name, prompt = sys.argv[1:]
file, = (f for f in list_repo_files(name) if f.endswith(".gguf"))
params = xllamacpp.CommonParams()
params.model.path = hf_hub_download(name, file)
params.n_ctx = 256
params.cpuparams.n_threads = 2
params.warmup = False
answer = xllamacpp.Server(params).handle_completions({"prompt": prompt, "max_tokens": 16, "temperature": 0, "seed": 1})
text = answer["choices"][0]["text"]
if not text.strip():
    sys.exit("the model says nothing")
print(f"{file}: {prompt}{text.rstrip()!r}")
