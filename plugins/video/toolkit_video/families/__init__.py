"""Published video tokenizers: their layouts, and the parts that hold them here."""
