"""Methods with networks of their own."""
