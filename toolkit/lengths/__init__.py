"""Examples of unequal lengths: in batches, through the parts, over the ranks, and as measured."""
