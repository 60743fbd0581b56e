"""From raw interactions to the canonical dataset, and from that to training sequences."""
