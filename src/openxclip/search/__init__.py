"""Search for videos and moments by text or by example: embeddings in a LanceDB table, then prompts for the best."""
