"""Published tokenizers of sound, and the parts that hold them."""
