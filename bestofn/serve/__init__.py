"""Best-of-N behind OpenAI's API: `bestofn serve`."""
