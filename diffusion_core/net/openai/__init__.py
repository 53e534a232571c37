"""HTTP interfaces that other people's clients speak: OpenAI's completions and chat, and llama-server's infill."""
