"""The command `echomen`."""
