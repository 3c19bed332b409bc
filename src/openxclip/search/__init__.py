"""Find videos and moments by words or by example: embeddings in a LanceDB table, then prompts for the best."""
