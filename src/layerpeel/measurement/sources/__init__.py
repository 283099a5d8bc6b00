"""Where rows of features, labels and logits come from."""
