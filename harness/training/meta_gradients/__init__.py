"""Meta-gradients: the derivative of the loss on real rows with respect to the weights of a batch."""
