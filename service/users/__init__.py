"""Who asks: histories and the representations made from them."""
