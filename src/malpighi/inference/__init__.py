"""How prompts become completions: in this process, over an OpenAI-compatible server, or scripted."""
