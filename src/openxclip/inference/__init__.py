"""Labels and a model become predictions."""
