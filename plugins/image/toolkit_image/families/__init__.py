"""Published image tokenizers, and the parts that hold them."""
