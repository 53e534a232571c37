"""Unmask beside other engines on the same weights, prompts and threads, in one run.

    (cd tests/bench/peers && npm install --ignore-scripts)      # llama.cpp, prebuilt (700 MB); nothing is built
    cd tests && python -m bench.peers --data HumanEval-SingleLineInfilling.dev.jsonl.gz --items 40 --json OUT.json
    cd tests && python -m bench.peers --data CanItEdit.dev.jsonl.gz --model qwen2.5-coder-1.5b --items 12 --json OUT

- ``unmask[:POLICY[:DTYPE]]``: the engine as users have it (by UNMASK_ENGINE_*), without its cache of prompts
- ``fast_dllm``: Fast-dLLM's decoding with our model; ours.py says what corresponds to what
- ``llama_cpp``: llama.cpp (node-llama-cpp) on the very GGUF file that our weights come from
- ``llama_cpp_lookup``: the same with node-llama-cpp's lookup in the prompt
- ``transformers[:DTYPE]``: transformers' greedy ``generate`` with our weights, bfloat16 unless said otherwise
- ``transformers_lookup[:DTYPE]``: the same with ``prompt_lookup_num_tokens=10``

Every peer gets the same prompt as token ids, one request at a time, from an empty cache. Peers take turns on each item
and the first one changes, so that noise hits all. A peer's answer ends where our stop rules end it; the time of what
it made beyond is not counted. Tokens are counted on the text that is left, with the model's tokenizer, for all alike.
``prefill`` is the prompt but for its last token, which makes the first token and belongs to decoding.
"""
