"""Cost and accuracy of training switches."""
