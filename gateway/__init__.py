"""The built-in gateway: OpenAI-compatible routes that check the budget, forward, stream through and report usage."""
