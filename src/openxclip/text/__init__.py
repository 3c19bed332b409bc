"""Words in, tokens out: tokenizers, label sets, prompt templates."""
