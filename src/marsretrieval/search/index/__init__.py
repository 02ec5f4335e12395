"""Search index: a sorted, quantized copy of a store for fast exact search."""
