"""How the loss on the real rows changes with the weights of a batch."""
