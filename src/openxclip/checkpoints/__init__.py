"""Models in and out of files: ours, Hugging Face's, the official code's and OpenAI's; tokenizers; the hub."""
