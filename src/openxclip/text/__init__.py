"""Text processing: tokenizers, label sets, prompt templates."""
