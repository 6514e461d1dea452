"""A simulated OpenAI-compatible model for the laptop: real HTTP and streams, deterministic answers and counts."""
